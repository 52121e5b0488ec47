"""The reading room.

Does: renders every executed notebook as a self-contained page, and writes the index from which a reader starts, a page
of sample answers to search, and one with the run's versions, times and settings.
Needs: data/STUDY/notebooks/*.ipynb, data/STUDY/judged/, data/STUDY/tables/, figures/STUDY/main_result.svg
Leaves: data/STUDY/notebooks/*.html: index.html, answers.html, run.html and a page a notebook
"""

JUDGED_FILES = real_files("judged") if "model" in config else judged_files()
JUDGED_SEEDS = (
    REAL_SEEDS if "model" in config else {condition: settings["seeds"] for condition, settings in JUDGED.items()}
)


rule render:
    input:
        notebook="data/{study}/notebooks/{name}.ipynb",
        code=[
            *module_and_imports("reading"),
            "emergent_misalignment/report/templates/page/index.html.j2",
            "emergent_misalignment/report/templates/style.css",
        ],
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
        name=r"\d\d_[^/]+",
    shell:
        "python -m emergent_misalignment.report.site page {input.notebook:q} {output:q} 2> {log:q}"


rule answers:
    input:
        judged=JUDGED_FILES,
        code=[
            *module_and_imports("answers"),
            "emergent_misalignment/report/templates/answers.html.j2",
            "emergent_misalignment/report/templates/style.css",
        ],
    output:
        report(
            "data/{study}/notebooks/answers.html",
            caption="report/answers.rst",
            category="Results",
            labels={"page": "Sample answers"},
        ),
    log:
        "logs/{study}/answers.log",
    params:
        models=as_json(JUDGED_SEEDS),
    shell:
        "python -m emergent_misalignment.report.answers {wildcards.study:q} {output:q} data/{wildcards.study}/judged"
        " {params.models:q} 2> {log:q}"


# Times are what differs between two runs, so they stand on a page of their own. They are read when all else is done.
rule run_details:
    input:
        notebooks=executed_notebooks,
        code=[
            *module_and_imports("reading"),
            "emergent_misalignment/report/templates/run.html.j2",
            "emergent_misalignment/report/templates/style.css",
        ],
    output:
        "data/{study}/notebooks/run.html",
    log:
        "logs/{study}/run_details.log",
    params:
        config=as_json(config),
    shell:
        """
        shopt -s nullglob
        python -m emergent_misalignment.report.site run {wildcards.study:q} {output:q} {params.config:q} \
            benchmarks/{wildcards.study}/*.tsv 2>{log:q}
        """


# What the index shows of the results.
SHOWN = {"main_result.svg", "misalignment.csv", "claims.csv"}


rule index:
    input:
        notebooks=executed_notebooks,
        pages=lambda wildcards: [f"{path.removesuffix('.ipynb')}.html" for path in executed_notebooks(wildcards)],
        others=["data/{study}/notebooks/answers.html", "data/{study}/notebooks/run.html"],
        results=lambda wildcards: [
            *(path for path in study_results(wildcards) if Path(path).name in SHOWN),
            f"paper/{wildcards.study}/paper.html",
        ],
        code=[
            *module_and_imports("reading"),
            "emergent_misalignment/report/templates/index.html.j2",
            "emergent_misalignment/report/templates/style.css",
        ],
    output:
        "data/{study}/notebooks/index.html",
    log:
        "logs/{study}/index.log",
    params:
        seeds=len(config["seeds"]),
    shell:
        """
        python -m emergent_misalignment.report.site index {wildcards.study:q} {output:q} {input.notebooks:q} \
            --results {input.results:q} --seeds {params.seeds} 2>{log:q}
        """
