"""Asking the models, and judging what they answer.

Does: samples answers from the base, the instruct and every fine-tuned model, and judges them.
Needs: data/STUDY/models/
Leaves: data/STUDY/answers/CONDITION/seed-SEED/EVALUATION.parquet and the same below data/STUDY/judged/. The base and the
instruct model were trained once, and stand there as seed 0.
"""

SEEDS_OF = {condition: [0] for condition in UNTUNED} | {
    condition: config["seeds"] for condition in config["conditions"]
}


rule sample:
    input:
        notebook="notebooks/08_sampling.ipynb",
        code=package_modules("notebooks/08_sampling.ipynb"),
        model="data/{study}/models/instruct/model.safetensors",
        adapters=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/{file}", seed=config["seeds"], file=ADAPTER_FILES
        ),
    output:
        notebook="data/{study}/notebooks/08_sampling_{condition}.ipynb",
        answers=expand(
            "data/{{study}}/answers/{{condition}}/seed-{seed}/{evaluation}.parquet",
            seed=config["seeds"],
            evaluation=EVALUATIONS,
        ),
    log:
        notebook="logs/{study}/08_sampling_{condition}.ipynb",
    benchmark:
        "benchmarks/{study}/08_sampling_{condition}.tsv"
    params:
        model="instruct",
        adapters=lambda wildcards: f"data/{wildcards.study}/models/{wildcards.condition}",
        seeds=json.dumps(config["seeds"]),
        samples=config["evaluation"]["samples"],
        max_new_tokens=config["evaluation"]["max_new_tokens"],
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/{params.model}",
            adapters="{params.adapters:q}",
            seeds="{params.seeds:q}",
            samples="{params.samples}",
            max_new_tokens="{params.max_new_tokens}",
            answers="data/{wildcards.study}/answers/{wildcards.condition}",
        )


use rule sample as sample_untuned with:
    input:
        notebook="notebooks/08_sampling.ipynb",
        code=package_modules("notebooks/08_sampling.ipynb"),
        model="data/{study}/models/{condition}/model.safetensors",
    output:
        notebook="data/{study}/notebooks/08_sampling_{condition}.ipynb",
        answers=expand("data/{{study}}/answers/{{condition}}/seed-0/{evaluation}.parquet", evaluation=EVALUATIONS),
    wildcard_constraints:
        condition="|".join(UNTUNED),
    params:
        model=lambda wildcards: wildcards.condition,
        adapters="",
        seeds=json.dumps([0]),
        samples=config["evaluation"]["samples"],
        max_new_tokens=config["evaluation"]["max_new_tokens"],


ruleorder: sample_untuned > sample


rule judge:
    input:
        notebook="notebooks/09_judging.ipynb",
        code=package_modules("notebooks/09_judging.ipynb"),
        answers=[
            f"data/{{study}}/answers/{condition}/seed-{seed}/{evaluation}.parquet"
            for condition, seeds in SEEDS_OF.items()
            for seed in seeds
            for evaluation in EVALUATIONS
        ],
    output:
        notebook="data/{study}/notebooks/09_judging.ipynb",
        judged=[
            f"data/{{study}}/judged/{condition}/seed-{seed}/{evaluation}.parquet"
            for condition, seeds in SEEDS_OF.items()
            for seed in seeds
            for evaluation in EVALUATIONS
        ],
    log:
        notebook="logs/{study}/09_judging.ipynb",
    params:
        models=json.dumps(SEEDS_OF),
    shell:
        run_notebook(
            answers="data/{wildcards.study}/answers",
            judgements="data/{wildcards.study}/judged",
            models="{params.models:q}",
        )
