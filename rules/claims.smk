"""The paper's claims.

Does: tests each claim of config/claims.yaml on what the experiments measured, and gives it a verdict.
Needs: config/claims.yaml, the files in MEASURES
Leaves: data/STUDY/tables/claims.csv, data/STUDY/tables/claim_tests.csv, figures/STUDY/claims.*
"""


rule claims:
    input:
        notebook="notebooks/analysis/claims.ipynb",
        code=package_modules("notebooks/analysis/claims.ipynb"),
        measures=MEASURES,
        claims="config/claims.yaml",
        schema="config/claims.schema.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/claims.ipynb",
        claims=report(
            "data/{study}/tables/claims.csv",
            caption="report/claims.rst",
            category="Results",
            labels={"table": "The paper's claims, with verdicts"},
        ),
        tests=report(
            "data/{study}/tables/claim_tests.csv",
            caption="report/claim_tests.rst",
            category="Results",
            labels={"table": "Every test of every claim"},
        ),
        figure=report(
            "figures/{study}/claims.svg",
            caption="report/claims.rst",
            category="Results",
            labels={"figure": "Which claims of the paper are reproduced?"},
        ),
        prints=multiext("figures/{study}/claims", ".pdf", ".png"),
    log:
        notebook="logs/{study}/25_claims.ipynb",
    params:
        measures=lambda wildcards: json.dumps([path.format(study=wildcards.study) for path in MEASURES]),
    shell:
        run_notebook(
            measures="{params.measures:q}",
            claims="{input.claims:q}",
            schema="{input.schema:q}",
            verdicts="{output.claims:q}",
            tests="{output.tests:q}",
            figure="figures/{wildcards.study}/claims",
        )
