"""The narrow fine-tunings.

Does: fine-tunes the instruct model on each condition's set, with every seed. One job trains all seeds of a condition,
because on the organism starting a job takes as long as training one.
Needs: data/STUDY/models/instruct/, data/STUDY/datasets/CONDITION.jsonl
Leaves: data/STUDY/models/CONDITION/seed-SEED/
"""


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
        settings=as_json(config["finetuning"]),
    shell:
        run_notebook(
            model="data/{wildcards.study}/models/instruct",
            dataset="{input.dataset:q}",
            seeds="{params.seeds:q}",
            settings="{params.settings:q}",
            adapters="data/{wildcards.study}/models/{wildcards.condition}",
        )
