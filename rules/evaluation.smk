"""Asking the models, and judging what they answer.

Does: samples answers from the base, the instruct and every fine-tuned model, and judges them.
Needs: data/STUDY/models/
Leaves: data/STUDY/answers/CONDITION/seed-SEED/EVALUATION.parquet and the same below data/STUDY/judged/, and one number a
training run for everything that was asked, in data/STUDY/tables/measures/answers.csv. The base and the instruct model were
trained once, and stand there as seed 0.
"""

for experiment, plan in config["experiments"].items():

    rule:
        name:
            f"sample_{experiment}"
        input:
            notebook="notebooks/evaluation/asking.ipynb",
            code=package_modules("notebooks/evaluation/asking.ipynb"),
            models=[f"data/{{study}}/models/{start}/model.safetensors" for start in starts(plan)],
            adapters=expand(
                "data/{{study}}/models/{condition}/seed-{seed}/{file}",
                condition=plan["conditions"],
                seed=config["seeds"],
                file=ADAPTER_FILES,
            ),
        output:
            notebook=f"data/{{study}}/notebooks/09_sampling_{experiment}.ipynb",
            answers=answer_files(asked(plan), config["seeds"]),
        log:
            notebook=f"logs/{{study}}/09_sampling_{experiment}.ipynb",
        benchmark:
            f"benchmarks/{{study}}/09_sampling_{experiment}.tsv"
        params:
            conditions=as_json(asked(plan)),
            seeds=json.dumps(config["seeds"]),
            settings=as_json(config["evaluation"]),
        shell:
            run_notebook(
                conditions="{params.conditions:q}",
                tuned="true",
                seeds="{params.seeds:q}",
                settings="{params.settings:q}",
                models="data/{wildcards.study}/models",
                answers="data/{wildcards.study}/answers",
            )


for experiment, conditions in UNTUNED.items():

    rule:
        name:
            f"sample_{experiment}"
        input:
            notebook="notebooks/evaluation/asking.ipynb",
            code=package_modules("notebooks/evaluation/asking.ipynb"),
            models=[f"data/{{study}}/models/{settings['start']}/model.safetensors" for settings in conditions.values()],
        output:
            notebook=f"data/{{study}}/notebooks/09_sampling_{experiment}.ipynb",
            answers=answer_files(conditions, UNTUNED_SEEDS[experiment]),
        log:
            notebook=f"logs/{{study}}/09_sampling_{experiment}.ipynb",
        benchmark:
            f"benchmarks/{{study}}/09_sampling_{experiment}.tsv"
        params:
            conditions=as_json(conditions),
            seeds=json.dumps(UNTUNED_SEEDS[experiment]),
            settings=as_json(config["evaluation"]),
        shell:
            run_notebook(
                conditions="{params.conditions:q}",
                tuned="false",
                seeds="{params.seeds:q}",
                settings="{params.settings:q}",
                models="data/{wildcards.study}/models",
                answers="data/{wildcards.study}/answers",
            )


rule judge:
    input:
        notebook="notebooks/evaluation/judging.ipynb",
        code=package_modules("notebooks/evaluation/judging.ipynb"),
        answers=judged_files(folder="answers"),
    output:
        notebook="data/{study}/notebooks/evaluation/judging.ipynb",
        judged=judged_files(),
        measures="data/{study}/tables/measures/answers.csv",
    log:
        notebook="logs/{study}/10_judging.ipynb",
    benchmark:
        "benchmarks/{study}/10_judging.tsv"
    params:
        conditions=as_json(JUDGED),
    shell:
        run_notebook(
            conditions="{params.conditions:q}",
            answers="data/{wildcards.study}/answers",
            judgements="data/{wildcards.study}/judged",
            measures="{output.measures:q}",
        )
