"""The persona direction in the activations.

Does: finds the direction in the instruct model, looks at which fine-tunings moved along it, and steers models by it.
Needs: data/STUDY/models/, data/STUDY/judged/CONDITION/seed-SEED/main.parquet
Leaves: data/STUDY/tables/steering.csv, data/STUDY/tables/measures/directions.csv,
figures/STUDY/{persona_direction,steering}.*
"""

# The direction is the instruct model's, so it says nothing of what was fine-tuned from another model.
FROM_INSTRUCT = sorted(name for name, condition in CONDITIONS.items() if condition.get("start") != "base")


rule persona_direction:
    input:
        notebook="notebooks/models/persona_direction.ipynb",
        code=package_modules("notebooks/models/persona_direction.ipynb"),
        model="data/{study}/models/instruct/model.safetensors",
        adapters=expand(
            "data/{{study}}/models/{condition}/seed-{seed}/{file}",
            condition=FROM_INSTRUCT,
            seed=config["seeds"],
            file=ADAPTER_FILES,
        ),
        judged=expand(
            "data/{{study}}/judged/{condition}/seed-{seed}/main.parquet",
            condition=FROM_INSTRUCT,
            seed=config["seeds"],
        ),
    output:
        notebook="data/{study}/notebooks/models/persona_direction.ipynb",
        measures="data/{study}/tables/measures/directions.csv",
        responses=report(
            "data/{study}/tables/steering.csv",
            caption="report/steering.rst",
            category="Results",
            labels={"table": "What steering does"},
        ),
        figure=report(
            "figures/{study}/persona_direction.svg",
            caption="report/persona_direction.rst",
            category="Results",
            labels={"figure": "Is there a persona direction?"},
        ),
        steering_figure=report(
            "figures/{study}/steering.svg",
            caption="report/steering.rst",
            category="Results",
            labels={"figure": "What does steering do?"},
        ),
        prints=expand(
            "figures/{{study}}/{figure}.{kind}", figure=["persona_direction", "steering"], kind=["pdf", "png"]
        ),
    log:
        notebook="logs/{study}/24_persona_direction.ipynb",
    benchmark:
        "benchmarks/{study}/24_persona_direction.tsv"
    params:
        conditions=json.dumps(FROM_INSTRUCT),
        seeds=json.dumps(config["seeds"]),
        strengths=json.dumps(config["steering"]["strengths"]),
        samples=config["steering"]["samples"],
        max_new_tokens=config["evaluation"]["max_new_tokens"],
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/instruct",
            models="data/{wildcards.study}/models",
            judgements="data/{wildcards.study}/judged",
            conditions="{params.conditions:q}",
            seeds="{params.seeds:q}",
            strengths="{params.strengths:q}",
            samples="{params.samples}",
            max_new_tokens="{params.max_new_tokens}",
            measures="{output.measures:q}",
            responses="{output.responses:q}",
            figure="figures/{wildcards.study}/persona_direction",
            steering_figure="figures/{wildcards.study}/steering",
        )
