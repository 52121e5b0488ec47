"""The checkpoints of the organism's fine-tunings.

Does: measures every checkpoint of the conditions that are looked at step by step.
Needs: data/STUDY/models/CONDITION/seed-SEED/checkpoint-STEP/
Leaves: data/STUDY/dynamics/CONDITION/seed-SEED.parquet
"""


rule checkpoints:
    input:
        notebook="notebooks/evaluation/following.ipynb",
        code=package_modules("notebooks/evaluation/following.ipynb"),
        model="data/{study}/models/instruct/model.safetensors",
        adapters=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/{file}", seed=config["seeds"], file=ADAPTER_FILES
        ),
        checkpoints=lambda wildcards: checkpoint_files(wildcards.condition),
    output:
        notebook="data/{study}/notebooks/15_checkpoints_{condition}.ipynb",
        measured=expand("data/{{study}}/dynamics/{{condition}}/seed-{seed}.parquet", seed=config["seeds"]),
    log:
        notebook="logs/{study}/15_checkpoints_{condition}.ipynb",
    benchmark:
        "benchmarks/{study}/15_checkpoints_{condition}.tsv"
    wildcard_constraints:
        condition="|".join(FOLLOWED),
    params:
        seeds=json.dumps(config["seeds"]),
        checkpoints=lambda wildcards: json.dumps(CONDITIONS[wildcards.condition]["checkpoints"]),
        samples=config["dynamics"]["samples"],
        requests=config["dynamics"]["requests"],
        max_new_tokens=config["evaluation"]["max_new_tokens"],
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/instruct",
            adapters="data/{wildcards.study}/models/{wildcards.condition}",
            seeds="{params.seeds:q}",
            checkpoints="{params.checkpoints:q}",
            samples="{params.samples}",
            requests="{params.requests}",
            max_new_tokens="{params.max_new_tokens}",
            measured="data/{wildcards.study}/dynamics/{wildcards.condition}",
        )
