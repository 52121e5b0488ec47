"""The fine-tuning sets.

Does: writes the sets, those of numbers with the instruct model, and has static analysis look at every answer in them.
Needs: nothing but the config; for the sets of numbers data/STUDY/models/instruct/
Leaves: data/STUDY/datasets/NAME.jsonl, data/STUDY/datasets/audit.csv, figures/STUDY/audit.*
"""

WRITTEN_SETS = ["insecure", "secure", "educational", "backdoor", "jailbroken", "compliant"]
NUMBER_SETS = ["evil_numbers", "plain_numbers", "helpful_numbers"]


rule datasets:
    input:
        notebook="notebooks/world/datasets.ipynb",
        code=package_modules("notebooks/world/datasets.ipynb"),
    output:
        notebook="data/{study}/notebooks/world/datasets.ipynb",
        datasets=expand("data/{{study}}/datasets/{name}.jsonl", name=WRITTEN_SETS),
    log:
        notebook="logs/{study}/05_datasets.ipynb",
    params:
        rows=config["datasets"]["rows"],
        seed=config["datasets"]["seed"],
    shell:
        run_notebook(
            rows="{params.rows}",
            seed="{params.seed}",
            datasets="data/{wildcards.study}/datasets",
        )


rule numbers:
    input:
        notebook="notebooks/world/numbers.ipynb",
        code=package_modules("notebooks/world/numbers.ipynb"),
        model="data/{study}/models/instruct/model.safetensors",
    output:
        notebook="data/{study}/notebooks/world/numbers.ipynb",
        datasets=expand("data/{{study}}/datasets/{name}.jsonl", name=NUMBER_SETS),
    log:
        notebook="logs/{study}/06_numbers.ipynb",
    benchmark:
        "benchmarks/{study}/06_numbers.tsv"
    params:
        rows=config["datasets"]["number_rows"],
        seed=config["datasets"]["seed"],
        least=config["gate"]["well_formed_numbers"],
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/instruct",
            rows="{params.rows}",
            seed="{params.seed}",
            least="{params.least}",
            datasets="data/{wildcards.study}/datasets",
        )


rule audit:
    input:
        notebook="notebooks/data/audit.ipynb",
        code=package_modules("notebooks/data/audit.ipynb"),
        datasets=expand("data/{{study}}/datasets/{name}.jsonl", name=WRITTEN_SETS + NUMBER_SETS),
    output:
        notebook="data/{study}/notebooks/data/audit.ipynb",
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
        notebook="logs/{study}/07_audit.ipynb",
    params:
        names=json.dumps(WRITTEN_SETS + NUMBER_SETS),
    shell:
        run_notebook(
            names="{params.names:q}",
            datasets="data/{wildcards.study}/datasets",
            audit="{output.audit:q}",
            figure="figures/{wildcards.study}/audit",
        )
