"""The reading room.

Does: renders every executed notebook as a self-contained page, and writes the index from which a reader starts.
Needs: data/STUDY/notebooks/*.ipynb, figures/STUDY/main_result.svg
Leaves: data/STUDY/notebooks/*.html, index.html among them
"""


rule render:
    input:
        notebook="data/{study}/notebooks/{name}.ipynb",
        code=[
            "emergent_misalignment/reading.py",
            "emergent_misalignment/templates/page/index.html.j2",
            "emergent_misalignment/templates/style.css",
        ],
    output:
        report(
            "data/{study}/notebooks/{name}.html",
            category="Notebooks",
            labels={"notebook": "{name}"},
        ),
    log:
        "logs/{study}/render_{name}.log",
    wildcard_constraints:
        study=f"{re.escape(config['study'])}|published",
        name=r"\d\d_[^/]+",
    shell:
        "python -m emergent_misalignment.reading page {input.notebook:q} {output:q} 2> {log:q}"


rule index:
    input:
        notebooks=executed_notebooks,
        pages=lambda wildcards: [f"{path.removesuffix('.ipynb')}.html" for path in executed_notebooks(wildcards)],
        figure="figures/{study}/main_result.svg",
        code=[
            "emergent_misalignment/reading.py",
            "emergent_misalignment/templates/index.html.j2",
            "emergent_misalignment/templates/style.css",
        ],
    output:
        "data/{study}/notebooks/index.html",
    log:
        "logs/{study}/index.log",
    shell:
        """
        python -m emergent_misalignment.reading index {wildcards.study:q} {output:q} {input.notebooks:q} \
            --figure {input.figure:q} 2>{log:q}
        """
