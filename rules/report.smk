"""The paper and the reading room.

Does: writes the registry of what is read in which order; fills the numbers of the paper in from the study's tables and sets
it with its figures; renders every executed notebook as a self-contained page, and writes the index from which a reader starts,
a page of sample answers to search, and one with the run's versions, times and settings. Where a set of the user's own is
fine-tuned on, writes the report on it.
Needs: the executed notebooks, tables and figures of the stages before
Leaves: data/STUDY/contents.json, paper/STUDY/paper.{pdf,html,tex}, data/STUDY/notebooks/*.html: index.html, answers.html,
run.html and a page a notebook; data/STUDY/report.{html,json}
"""

from emergent_misalignment.report.contents import Executed

CONTENTS = {
    "study": PLAN.study,
    "kind": "organism" if PLAN.is_organism else "real",
    "seeds": len(PLAN.seeds),
    "config": config,
    "chapters": CHAPTERS,
}
EXECUTED = [notebook["path"] for each in CHAPTERS for notebook in each["notebooks"]]
RUNS = {notebook["path"]: Executed(**notebook).label for each in CHAPTERS for notebook in each["notebooks"]}
RESULTS = [path for each in CHAPTERS for path in each["results"]]
TEMPLATES = "emergent_misalignment/report/templates"


rule contents:
    output:
        "data/{study}/contents.json",
    log:
        "logs/{study}/contents.log",
    localrule: True
    params:
        contents=json.dumps(CONTENTS, indent=1),
    shell:
        "printf '%s\\n' {params.contents:q} > {output:q} 2> {log:q}"


rule paper:
    input:
        contents="data/{study}/contents.json",
        source=[
            "paper/paper.md",
            "paper/numbers.yaml",
            "paper/references.bib",
            "paper/crossref.lua",
            "paper/template.typ",
            "paper/template.html",
            "paper/paper.css",
            f"{TEMPLATES}/style.css",
        ],
        code=module_and_imports("report.paper"),
        results=RESULTS,
        notebooks=EXECUTED,
        compared=expand("data/{other}/tables/claims.csv", other=config["compare"]),
    output:
        pdf=report("paper/{study}/paper.pdf", caption="report/paper.rst", category="Paper", labels={"paper": "PDF"}),
        html=report("paper/{study}/paper.html", caption="report/paper.rst", category="Paper", labels={"paper": "page"}),
        tex="paper/{study}/paper.tex",
    log:
        "logs/{study}/paper.log",
    shell:
        # The sentence that says what is wrong goes to the terminal too; bash runs with pipefail, so tee hides no failure.
        "python -m emergent_misalignment.report.paper {input.contents:q} paper/{wildcards.study:q}"
        " --compare {input.compared:q} 2>&1 | tee {log:q}"


rule render:
    input:
        notebook="data/{study}/notebooks/{name}.ipynb",
        code=[*module_and_imports("report.site"), f"{TEMPLATES}/page/index.html.j2", f"{TEMPLATES}/style.css"],
    output:
        report(
            "data/{study}/notebooks/{name}.html",
            caption="report/notebook.rst",
            category="Notebooks",
            labels={"notebook": "{name}"},
        ),
    log:
        "logs/{study}/render_{name}.log",
    wildcard_constraints:
        study=f"{re.escape(config['study'])}|published",
        name=r"(?!(index|answers|run)$)[^/]+",
    params:
        run=lambda wildcards: RUNS.get(f"data/{wildcards.study}/notebooks/{wildcards.name}.ipynb", ""),
    shell:
        "python -m emergent_misalignment.report.site page {input.notebook:q} {output:q} --run={params.run:q} 2> {log:q}"


rule answers:
    input:
        judged=PLAN.judged,
        code=[*module_and_imports("report.answers"), f"{TEMPLATES}/answers.html.j2", f"{TEMPLATES}/style.css"],
    output:
        report(
            "data/{study}/notebooks/answers.html",
            caption="report/answers.rst",
            category="Results",
            labels={"page": "Sample answers"},
        ),
    log:
        "logs/{study}/answers.log",
    shell:
        "python -m emergent_misalignment.report.answers {wildcards.study:q} {output:q} {input.judged:q} 2> {log:q}"


rule user_report:
    input:
        code=[*module_and_imports("own_data.report"), f"{TEMPLATES}/report.html.j2", f"{TEMPLATES}/style.css"],
        judged=PLAN.judged,
        measures=[
            "data/{study}/tables/measures/answers.csv",
            *(f"data/{{study}}/tables/measures/held_out_loss_{name}.csv" for name in PLAN.conditions if PLAN.held_out),
        ],
        trainings=PLAN.trainings(list(PLAN.report.get("sets", {}))),
        audit=["data/{study}/datasets/audit.csv"] if PLAN.datasets else [],
    output:
        page=report(
            "data/{study}/report.html",
            caption="report/user_report.rst",
            category="Results",
            labels={"page": "What a set of one's own does"},
        ),
        json="data/{study}/report.json",
    log:
        "logs/{study}/user_report.log",
    params:
        plan=as_json(PLAN.report),
    shell:
        "python -m emergent_misalignment.own_data.report {params.plan:q} {output.page:q} {output.json:q} --measures {input.measures:q}"
        " --judged {input.judged:q} --trainings {input.trainings:q} --audit {input.audit:q} 2>&1 | tee {log:q}"


# Times are what differs between two runs, so they stand on a page of their own. They are read when all else is done.
rule run_details:
    input:
        contents="data/{study}/contents.json",
        notebooks=EXECUTED,
        code=[*module_and_imports("report.site"), f"{TEMPLATES}/run.html.j2", f"{TEMPLATES}/style.css"],
    output:
        "data/{study}/notebooks/run.html",
    log:
        "logs/{study}/run_details.log",
    shell:
        "shopt -s nullglob; python -m emergent_misalignment.report.site run {input.contents:q} {output:q}"
        " benchmarks/{wildcards.study}/*.tsv 2> {log:q}"


rule index:
    input:
        contents="data/{study}/contents.json",
        pages=[path.removesuffix(".ipynb") + ".html" for path in EXECUTED],
        others=["data/{study}/notebooks/answers.html", "data/{study}/notebooks/run.html"],
        results=RESULTS,
        paper="paper/{study}/paper.html" if PLAN.tuned else [],
        report="data/{study}/report.html" if PLAN.report else [],
        code=[*module_and_imports("report.site"), f"{TEMPLATES}/index.html.j2", f"{TEMPLATES}/style.css"],
    output:
        "data/{study}/notebooks/index.html",
    log:
        "logs/{study}/index.log",
    shell:
        "python -m emergent_misalignment.report.site index {input.contents:q} {output:q} --paper {input.paper:q}"
        " --report={input.report:q} 2> {log:q}"
