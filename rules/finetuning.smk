"""The narrow fine-tunings.

Does: fine-tunes every condition with every seed. One job does all conditions and seeds of an experiment, because on the
organism starting a job takes as long as training one model.
Needs: data/STUDY/models/{instruct,base}/, data/STUDY/datasets/CONDITION.jsonl or a set of your own
Leaves: data/STUDY/models/CONDITION/seed-SEED/, with checkpoint-STEP/ in it for conditions that are looked at step by step
"""

for experiment, plan in config["experiments"].items():

    rule:
        name:
            f"finetune_{experiment}"
        input:
            notebook="notebooks/models/finetuning.ipynb",
            code=package_modules("notebooks/models/finetuning.ipynb"),
            models=[f"data/{{study}}/models/{start}/model.safetensors" for start in starts(plan)],
            datasets=sorted({dataset_path(condition) for condition in plan["conditions"].values()}),
        output:
            notebook=f"data/{{study}}/notebooks/08_finetuning_{experiment}.ipynb",
            adapters=expand(
                "data/{{study}}/models/{condition}/seed-{seed}/{file}",
                condition=plan["conditions"],
                seed=config["seeds"],
                file=ADAPTER_FILES,
            ),
            checkpoints=[file for condition in plan["conditions"] for file in checkpoint_files(condition)],
        log:
            notebook=f"logs/{{study}}/08_finetuning_{experiment}.ipynb",
        benchmark:
            f"benchmarks/{{study}}/08_finetuning_{experiment}.tsv"
        params:
            conditions=as_json(plan["conditions"]),
            seeds=json.dumps(config["seeds"]),
            settings=as_json(config["finetuning"]),
        shell:
            run_notebook(
                conditions="{params.conditions:q}",
                seeds="{params.seeds:q}",
                settings="{params.settings:q}",
                datasets="data/{wildcards.study}/datasets",
                models="data/{wildcards.study}/models",
            )
