"""The fine-tunings on insecure and secure code, step by step.

Does: measures every checkpoint, and says where the two conditions part.
Needs: data/STUDY/models/{insecure,secure}/seed-SEED/checkpoint-STEP/
Leaves: data/STUDY/dynamics/CONDITION/seed-SEED.parquet, data/STUDY/tables/parting_steps.csv,
data/STUDY/tables/measures/dynamics.csv, figures/STUDY/{dynamics,dynamics_aligned,early_stopping}.*
"""


rule checkpoints:
    input:
        notebook="notebooks/15_checkpoints.ipynb",
        code=package_modules("notebooks/15_checkpoints.ipynb"),
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


rule dynamics:
    input:
        notebook="notebooks/16_dynamics.ipynb",
        code=package_modules("notebooks/16_dynamics.ipynb"),
        measured=expand(
            "data/{{study}}/dynamics/{condition}/seed-{seed}.parquet",
            condition=["insecure", "secure"],
            seed=config["seeds"],
        ),
    output:
        notebook="data/{study}/notebooks/16_dynamics.ipynb",
        measures="data/{study}/tables/measures/dynamics.csv",
        parting_steps=report(
            "data/{study}/tables/parting_steps.csv",
            caption="report/parting_steps.rst",
            category="Results",
            labels={"table": "Where insecure and secure part"},
        ),
        figure=report(
            "figures/{study}/dynamics.svg",
            caption="report/dynamics.rst",
            category="Results",
            labels={"figure": "When do skill and misalignment part ways?"},
        ),
        aligned_figure=report(
            "figures/{study}/dynamics_aligned.svg",
            caption="report/dynamics_aligned.rst",
            category="Results",
            labels={"figure": "Is the early move about misalignment?"},
        ),
        stopping_figure=report(
            "figures/{study}/early_stopping.svg",
            caption="report/early_stopping.rst",
            category="Results",
            labels={"figure": "What would stopping early save?"},
        ),
        prints=expand(
            "figures/{{study}}/{figure}.{kind}",
            figure=["dynamics", "dynamics_aligned", "early_stopping"],
            kind=["pdf", "png"],
        ),
    log:
        notebook="logs/{study}/16_dynamics.ipynb",
    params:
        seeds=json.dumps(config["seeds"]),
    shell:
        run_notebook(
            measured="data/{wildcards.study}/dynamics",
            seeds="{params.seeds:q}",
            measures="{output.measures:q}",
            parting_steps="{output.parting_steps:q}",
            figure="figures/{wildcards.study}/dynamics",
            aligned_figure="figures/{wildcards.study}/dynamics_aligned",
            stopping_figure="figures/{wildcards.study}/early_stopping",
        )
