"""The paper.

Does: fills the numbers of paper/paper.md in from the study's tables, and sets the text with its figures.
Needs: tables and figures of the stages before, and the executed notebooks, to which the captions link.
Leaves: paper/STUDY/paper.pdf, paper.html (one file), paper.tex (which reads figures/STUDY/*.pdf)
"""

# The settings that its text names.
DESCRIBED = [
    *("seeds", "experiments", "organism", "gate", "instruct", "datasets", "finetuning", "ladder", "evaluation"),
    *("model", "judge"),
]


rule paper:
    input:
        source=[
            "paper/paper.md",
            "paper/numbers.yaml",
            "paper/references.bib",
            "paper/crossref.lua",
            "paper/template.typ",
            "paper/template.html",
            "paper/paper.css",
            "emergent_misalignment/report/templates/style.css",
        ],
        code=module_and_imports("paper"),
        results=study_results,
        notebooks=executed_notebooks,
        beside=expand("data/{other}/tables/claims.csv", other=config["beside"]),
    output:
        pdf=report("paper/{study}/paper.pdf", caption="report/paper.rst", category="Paper", labels={"paper": "PDF"}),
        html=report("paper/{study}/paper.html", caption="report/paper.rst", category="Paper", labels={"paper": "page"}),
        tex="paper/{study}/paper.tex",
    log:
        "logs/{study}/paper.log",
    params:
        config=as_json({key: config[key] for key in DESCRIBED if key in config}),
    shell:
        # The sentence that says what is wrong goes to the terminal too; bash runs with pipefail, so tee hides no failure.
        """
        python -m emergent_misalignment.report.paper {wildcards.study:q} paper/{wildcards.study:q} \
            {input.results:q} {input.notebooks:q} \
            --config {params.config:q} --beside {input.beside:q} 2>&1 | tee {log:q}
        """
