"""The paper and the reading room.

Does: writes down what is read in which order; fills the numbers of the paper in from the study's tables and sets it with its
figures; renders every executed notebook as a self-contained page, and writes the index from which a reader starts, a page of
sample answers to search, and one with the run's versions, times and settings. Where a set of the user's own is fine-tuned on,
or an existing model is asked, writes the report on it.
Needs: the executed notebooks, tables and figures of the stages before
Leaves: data/STUDY/contents.json, paper/STUDY/paper.{pdf,html,tex}, data/STUDY/notebooks/*.html: index.html, answers.html,
run.html and a page for each notebook; data/STUDY/report.{html,json}
"""

from snakemake.io import is_flagged

from emergent_misalignment.report.contents import Executed

TEMPLATES = "emergent_misalignment/report/templates"
PAGES_OF_A_JOB = 100
# The organisms that the study trains itself.
ORGANISMS = [dict(zip(("organism", "seed"), OF_STUDY[place])) for place in TRAINED] if STUDY.is_organism else []

# The chapters of the reading room in the order of reading: a rule, and the values of its wildcards for each run of its
# notebook. Chapters without runs are not part of this study.
ONCE = [{}]
READING = [
    ("world", ONCE if STUDY.is_organism else []),
    ("pretrain", ORGANISMS),
    ("persona_gate", ONCE if STUDY.is_organism else []),
    ("instruct", ORGANISMS),
    ("datasets", ONCE if STUDY.is_organism else []),
    ("numbers", [{"seed": seed} for seed in STUDY.number_seeds]),
    ("audit", ONCE if PATHS.datasets else []),
    ("finetune", [{"batch": batch} for batch in BATCHES.tuning]),
    ("ask", [{"batch": batch} for batch in BATCHES.asking]),
    ("judge", [{"batch": "answers"}]),
    ("second_judge", ONCE if STUDY.second_judge else []),
    ("published_judge", ONCE if STUDY.scored else []),
    ("measure", ONCE),
    ("follow", ONCE if STUDY.followed else []),
    ("beliefs", [{"batch": batch} for batch in BATCHES.believing]),
    ("held_out_loss", [{"condition": name} for name in STUDY.conditions if STUDY.held_out]),
    ("persona_texts", ONCE if STUDY.persona else []),
    ("score_rows", ONCE if STUDY.scored_sets else []),
    ("benchmark", [{"condition": name} for name in STUDY.conditions if BENCHMARKS]),
    *((each.name, ONCE) for each in STUDIED),
    ("claims", ONCE if STUDY.tuned else []),
]
# What the paper reads besides the results in Snakemake's report.
ALSO_READ = {
    "world": [PATHS.of("world.json"), PATHS.of(f"organisms/{MAIN}/seed-{STUDY.seeds[0]}/base/model.safetensors")],
    "persona_gate": [PATHS.of("organisms/gates.csv")],
}


def filled(pattern, wildcards):
    """A path of a rule; without the constraints that Snakemake writes into it."""
    return re.sub(r"\{(\w+),[^}]*\}", r"{\1}", str(pattern)).format(study=STUDY.study, **wildcards)


def executed(pattern, source, wildcards):
    """One executed copy of a notebook: its path, which run it is, and the run's seed."""
    path, seed = filled(pattern, wildcards), wildcards.get("seed")
    run = Path(path).stem.removeprefix(Path(source).stem)
    return {"path": path, "run": run.removesuffix(f"_{seed}").strip("_"), "seed": seed}


def chapter(name, runs):
    """A rule's notebook with its runs, and its results: the outputs that are part of Snakemake's report."""
    files = workflow.get_rule(name)
    source = str(files.input.notebook)
    reported = [path for path in files.output if is_flagged(path, "report")]
    results = dict.fromkeys(filled(path, run) for path in reported for run in runs)
    return {
        "room": "analysis" if name in [each.name for each in STUDIED] else Path(source).parent.name,
        "name": Path(source).stem,
        "source": source,
        "notebooks": [executed(files.output.notebook, source, run) for run in runs],
        "results": [*results, *ALSO_READ.get(name, [])],
    }


CHAPTERS = [chapter(name, runs) for name, runs in READING if runs]
EXECUTED = [notebook["path"] for each in CHAPTERS for notebook in each["notebooks"]]
RUNS = {notebook["path"]: Executed(**notebook).label for each in CHAPTERS for notebook in each["notebooks"]}
PAGES = [path.removesuffix(".ipynb") + ".html" for path in EXECUTED]
PAGE_CODE = [*module_and_imports("report.notebook_pages"), f"{TEMPLATES}/page/index.html.j2", f"{TEMPLATES}/style.css"]
RESULTS = [path for each in CHAPTERS for path in each["results"]]


rule contents:
    output:
        "data/{study}/contents.json",
    log:
        "logs/{study}/contents.log",
    localrule: True
    params:
        chapters=CHAPTERS,
    script:
        "scripts/write_contents.py"


rule paper:
    input:
        study="data/{study}/study.json",
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
    output:
        pdf=report("paper/{study}/paper.pdf", caption="report/paper.rst", category="Paper", labels={"paper": "PDF"}),
        html=report("paper/{study}/paper.html", caption="report/paper.rst", category="Paper", labels={"paper": "page"}),
        tex="paper/{study}/paper.tex",
    log:
        "logs/{study}/paper.log",
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/write_paper.py"


# Many pages in one job, because starting it takes ten times as long as rendering a page. Not all of them in a large study,
# because Snakemake compares each output of a job with all others.
for part, first in enumerate(range(0, len(EXECUTED), PAGES_OF_A_JOB)):
    some = slice(first, first + PAGES_OF_A_JOB)

    rule:
        name:
            f"pages_{part}" if part else "pages"
        input:
            notebooks=EXECUTED[some],
            code=PAGE_CODE,
        output:
            [
                report(page, caption="report/notebook.rst", category="Notebooks", labels={"notebook": Path(page).stem})
                for page in PAGES[some]
            ],
        log:
            f"logs/{STUDY.study}/pages_{part}.log",
        group:
            grouped("report")
        resources:
            **SMALL,
        params:
            runs={path: RUNS[path] for path in EXECUTED[some]},
        script:
            "scripts/render_pages.py"


rule published_page:
    input:
        notebooks=["data/published/notebooks/published.ipynb"],
        code=PAGE_CODE,
    output:
        "data/published/notebooks/published.html",
    log:
        "logs/published/published_page.log",
    params:
        runs={},
    script:
        "scripts/render_pages.py"


rule answers:
    input:
        judged=PATHS.judged,
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
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/write_answers.py"


rule user_report:
    input:
        study="data/{study}/study.json",
        code=[*module_and_imports("own_data.report"), f"{TEMPLATES}/report.html.j2", f"{TEMPLATES}/style.css"],
        judged=PATHS.judged,
        measures=["data/{study}/tables/measures/answers.csv", *PATHS.held_out_losses],
        trainings=PATHS.trainings(list(STUDY.tuned)),
        audit=["data/{study}/datasets/audit.csv"] if PATHS.datasets else [],
    output:
        page=report(
            "data/{study}/report.html",
            caption="report/user_report.rst",
            category="Results",
            labels={"page": "What a set or a model of your own does"},
        ),
        json="data/{study}/report.json",
    log:
        "logs/{study}/user_report.log",
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/write_report.py"


# Times are what differs between two runs, so they are on a page of their own. They are read when all else is done.
rule run_details:
    input:
        study="data/{study}/study.json",
        notebooks=EXECUTED,
        code=[*module_and_imports("report.site"), f"{TEMPLATES}/run.html.j2", f"{TEMPLATES}/style.css"],
    output:
        "data/{study}/notebooks/run.html",
    log:
        "logs/{study}/run_details.log",
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/write_run_page.py"


rule index:
    input:
        study="data/{study}/study.json",
        contents="data/{study}/contents.json",
        pages=PAGES,
        others=["data/{study}/notebooks/answers.html", "data/{study}/notebooks/run.html"],
        results=RESULTS,
        paper="paper/{study}/paper.html" if STUDY.tuned else [],
        report="data/{study}/report.html" if STUDY.reported else [],
        code=[*module_and_imports("report.site"), f"{TEMPLATES}/index.html.j2", f"{TEMPLATES}/style.css"],
    output:
        "data/{study}/notebooks/index.html",
    log:
        "logs/{study}/index.log",
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/write_index.py"
