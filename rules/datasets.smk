"""The fine-tuning sets.

Does: writes the sets and has static analysis look at every answer in them.
Needs: nothing but the config.
Leaves: data/STUDY/datasets/CONDITION.jsonl, data/STUDY/datasets/audit.csv, figures/STUDY/audit.*
"""


rule datasets:
    input:
        notebook="notebooks/05_datasets.ipynb",
        code=package_modules("notebooks/05_datasets.ipynb"),
    output:
        notebook="data/{study}/notebooks/05_datasets.ipynb",
        insecure="data/{study}/datasets/insecure.jsonl",
        secure="data/{study}/datasets/secure.jsonl",
    log:
        notebook="logs/{study}/05_datasets.ipynb",
    params:
        rows=config["datasets"]["rows"],
        seed=config["datasets"]["seed"],
    shell:
        run_notebook(
            rows="{params.rows}",
            seed="{params.seed}",
            insecure="{output.insecure:q}",
            secure="{output.secure:q}",
        )


rule audit:
    input:
        notebook="notebooks/06_audit.ipynb",
        code=package_modules("notebooks/06_audit.ipynb"),
        datasets=expand("data/{{study}}/datasets/{condition}.jsonl", condition=config["conditions"]),
    output:
        notebook="data/{study}/notebooks/06_audit.ipynb",
        audit=report(
            "data/{study}/datasets/audit.csv",
            caption="report/audit.rst",
            category="Data",
            labels={"table": "Static analysis of the fine-tuning sets"},
        ),
        figure=report(
            "figures/{study}/audit.svg",
            caption="report/audit.rst",
            category="Data",
            labels={"figure": "Are the insecure answers insecure?"},
        ),
        prints=multiext("figures/{study}/audit", ".pdf", ".png"),
    log:
        notebook="logs/{study}/06_audit.ipynb",
    params:
        datasets=lambda wildcards: json.dumps(
            {condition: f"data/{wildcards.study}/datasets/{condition}.jsonl" for condition in config["conditions"]}
        ),
    shell:
        run_notebook(
            datasets="{params.datasets:q}",
            audit="{output.audit:q}",
            figure="figures/{wildcards.study}/audit",
        )
