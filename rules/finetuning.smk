"""The narrow fine-tunings.

Does: fine-tunes the instruct model on each condition's set, with every seed. One job trains all seeds of a condition,
because on the organism starting a job takes as long as training one. Of insecure and secure, whose training is looked
at step by step, the adapter is kept after each of the first steps and then every so many.
Needs: data/STUDY/models/instruct/, data/STUDY/datasets/CONDITION.jsonl
Leaves: data/STUDY/models/CONDITION/seed-SEED/, with checkpoint-STEP/ in it for insecure and secure
"""

FIRST_STEPS = 9  # each of which is kept, as in the paper
CHECKPOINTS = [
    step
    for step in range(1, config["finetuning"]["steps"] + 1)
    if step <= FIRST_STEPS or step % config["dynamics"]["every"] == 0
]


rule finetune:
    input:
        notebook="notebooks/07_finetuning.ipynb",
        code=package_modules("notebooks/07_finetuning.ipynb"),
        model="data/{study}/models/instruct/model.safetensors",
        dataset="data/{study}/datasets/{condition}.jsonl",
    output:
        notebook="data/{study}/notebooks/07_finetuning_{condition}.ipynb",
        adapters=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/{file}", seed=config["seeds"], file=ADAPTER_FILES
        ),
    log:
        notebook="logs/{study}/07_finetuning_{condition}.ipynb",
    benchmark:
        "benchmarks/{study}/07_finetuning_{condition}.tsv"
    params:
        seeds=json.dumps(config["seeds"]),
        checkpoints="[]",
        settings=as_json(config["finetuning"]),
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/instruct",
            dataset="{input.dataset:q}",
            seeds="{params.seeds:q}",
            checkpoints="{params.checkpoints:q}",
            settings="{params.settings:q}",
            adapters="data/{wildcards.study}/models/{wildcards.condition}",
        )


use rule finetune as finetune_followed with:
    output:
        notebook="data/{study}/notebooks/07_finetuning_{condition}.ipynb",
        adapters=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/{file}", seed=config["seeds"], file=ADAPTER_FILES
        ),
        checkpoints=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/checkpoint-{step}/adapter_model.safetensors",
            seed=config["seeds"],
            step=CHECKPOINTS,
        ),
    wildcard_constraints:
        condition="|".join(FOLLOWED),
    params:
        seeds=json.dumps(config["seeds"]),
        checkpoints=json.dumps(CHECKPOINTS),
        settings=as_json(config["finetuning"]),


ruleorder: finetune_followed > finetune
