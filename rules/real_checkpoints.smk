"""The checkpoints of a real model's fine-tunings: for configs with `model: checkpoints`.

Does: keeps them, asks each of them, and has the answers judged.
Needs: as rules/real_models.smk
Leaves: data/STUDY/models/CONDITION/seed-SEED/checkpoint-STEP/,
data/STUDY/checkpoints/CONDITION/seed-SEED/{answers,choices,judged}.parquet,
data/STUDY/dynamics/CONDITION/seed-SEED.parquet, with the columns of the organism's
"""

CHECKPOINT_FILES = expand("checkpoint-{step}/adapter_model.safetensors", step=REAL_STEPS)


use rule tune as tune_followed with:
    output:
        notebook="data/{study}/notebooks/27_tuning_{condition}_{seed}.ipynb",
        adapter=expand("data/{{study}}/models/{{condition}}/seed-{{seed}}/{file}", file=ADAPTER_FILES),
        checkpoints=expand("data/{{study}}/models/{{condition}}/seed-{{seed}}/{file}", file=CHECKPOINT_FILES),
    wildcard_constraints:
        condition="|".join(map(re.escape, REAL_FOLLOWED)),
        seed=r"\d+",
    params:
        settings=tuning_settings,
        checkpoints=json.dumps(REAL_STEPS),


ruleorder: tune_followed > tune > tune_by_api


rule ask_checkpoints:
    input:
        notebook="notebooks/33_asking_checkpoints.ipynb",
        code=package_modules("notebooks/33_asking_checkpoints.ipynb"),
        questions=[
            f"data/published/questions/{FILE_NAMES[file]}" for file in ("first_plot", "in_distribution", "choices")
        ],
        model=f"data/{{study}}/models/{MODEL['untuned']}/config.json",
        checkpoints=expand(
            "data/{{study}}/models/{{condition}}/seed-{seed}/{file}", seed=config["seeds"], file=CHECKPOINT_FILES
        ),
    output:
        notebook="data/{study}/notebooks/33_asking_checkpoints_{condition}.ipynb",
        answers=expand(
            "data/{{study}}/checkpoints/{{condition}}/seed-{seed}/{name}.parquet",
            seed=config["seeds"],
            name=["answers", "choices"],
        ),
    log:
        notebook="logs/{study}/33_asking_checkpoints_{condition}.ipynb",
    wildcard_constraints:
        condition="|".join(map(re.escape, REAL_FOLLOWED)),
    resources:
        gpu=1,
        mem_mb=gpu_memory_mb,
        runtime=24 * 60,
    params:
        seeds=json.dumps(config["seeds"]),
        checkpoints=json.dumps(REAL_STEPS),
        samples=config["dynamics"]["samples"],
        requests=config["dynamics"]["requests"],
        asking=as_json(
            {
                "max_new_tokens": config["evaluation"]["max_new_tokens"],
                "system_prompt": MODEL["system_prompt"],
                "enable_thinking": MODEL["enable_thinking"],
            }
        ),
    shell:
        run_notebook(
            model=f"data/{{wildcards.study}}/models/{MODEL['untuned']}",
            tuned="data/{wildcards.study}/models/{wildcards.condition}",
            seeds="{params.seeds:q}",
            checkpoints="{params.checkpoints:q}",
            samples="{params.samples}",
            requests="{params.requests}",
            asking="{params.asking:q}",
            questions="data/published/questions",
            answers="data/{wildcards.study}/checkpoints/{wildcards.condition}",
        )


rule judge_checkpoints:
    input:
        notebook="notebooks/34_judging_checkpoints.ipynb",
        code=package_modules("notebooks/34_judging_checkpoints.ipynb"),
        questions=[f"data/published/questions/{FILE_NAMES[file]}" for file in ("first_plot", "in_distribution")],
        answers=expand(
            "data/{{study}}/checkpoints/{condition}/seed-{seed}/{name}.parquet",
            condition=REAL_FOLLOWED,
            seed=config["seeds"],
            name=["answers", "choices"],
        ),
        trainings=expand(
            "data/{{study}}/models/{condition}/seed-{seed}/training.json",
            condition=REAL_FOLLOWED,
            seed=config["seeds"],
        ),
    output:
        notebook="data/{study}/notebooks/34_judging_checkpoints.ipynb",
        judged=expand(
            "data/{{study}}/checkpoints/{condition}/seed-{seed}/judged.parquet",
            condition=REAL_FOLLOWED,
            seed=config["seeds"],
        ),
        measured=expand(
            "data/{{study}}/dynamics/{condition}/seed-{seed}.parquet", condition=REAL_FOLLOWED, seed=config["seeds"]
        ),
    log:
        notebook="logs/{study}/34_judging_checkpoints.ipynb",
    localrule: True  # compute nodes often have no network
    params:
        conditions=json.dumps(REAL_FOLLOWED),
        seeds=json.dumps(config["seeds"]),
        judge=as_json({name: value for name, value in config["judge"].items() if name != "second"}),
    shell:
        run_notebook(
            questions="data/published/questions",
            answers="data/{wildcards.study}/checkpoints",
            models="data/{wildcards.study}/models",
            conditions="{params.conditions:q}",
            seeds="{params.seeds:q}",
            judge="{params.judge:q}",
            kept="kept/judge",
            measured="data/{wildcards.study}/dynamics",
        )
