"""Studies of real models: published weights on this machine's GPU or processor, or OpenAI's models.

Does: fetches the published questions and the weights, fine-tunes on the published data, asks, has a judge model judge, and
leaves the results where those of the organism stand, so that the same tables and figures are made of them.
Needs: the config's sections `model` and `judge`, and `openai` for OpenAI's models; a network or a mirror; keys in the
environment. Snakemake plans all of it without any of these.
Leaves: data/STUDY/{models,answers,judged,tables,notebooks}/, data/published/questions/; kept/, with what judges and APIs
said and the ids of jobs, which was paid for, and which `make clean` leaves
"""


rule estimate:
    log:
        f"logs/{config['study']}/estimate.log",
    localrule: True
    params:
        config=as_json({name: config[name] for name in config if name != "organism"}),
    shell:
        "python -m emergent_misalignment.analysis.costs {params.config:q} | tee {log:q}"


# As with data sets, a published file's checksum says what it holds, whatever fetches it.
rule fetch_questions:
    output:
        "data/published/questions/{file}.{kind}",
    log:
        "logs/published/fetch_questions_{file}.{kind}.log",
    wildcard_constraints:
        file="|".join(FILE_NAMES),
        kind="yaml|jsonl|json",
    localrule: True
    params:
        mirror=config["mirror"],
    shell:
        "python -m emergent_misalignment.data.published {wildcards.file} {output:q} --mirror={params.mirror:q}"
        " 2>&1 | tee {log:q}"


use rule fetch_questions as fetch_further_set with:
    output:
        "data/published/datasets/{file}.jsonl",
    log:
        "logs/published/fetch_{file}.log",
    wildcard_constraints:
        file="|".join(FURTHER_SETS),


rule fetch_model:
    output:
        "data/{study}/models/{untuned}/config.json",
    log:
        "logs/{study}/fetch_model_{untuned}.log",
    wildcard_constraints:
        untuned=MODEL["untuned"],
    localrule: True
    params:
        name=MODEL["name"],
        revision=MODEL["revision"],
    shell:
        "python -m emergent_misalignment.models.weights {params.name:q} $(dirname {output:q}) --revision={params.revision:q} 2>&1"
        " | tee {log:q}"


rule tune:
    input:
        notebook="notebooks/27_tuning.ipynb",
        code=package_modules("notebooks/27_tuning.ipynb"),
        model=f"data/{{study}}/models/{MODEL['untuned']}/config.json",
        dataset=lambda wildcards: MODEL.get("datasets", {}).get(
            wildcards.condition, f"data/published/datasets/{wildcards.condition}.jsonl"
        ),
    output:
        notebook="data/{study}/notebooks/27_tuning_{condition}_{seed}.ipynb",
        adapter=expand("data/{{study}}/models/{{condition}}/seed-{{seed}}/{file}", file=ADAPTER_FILES),
    log:
        notebook="logs/{study}/27_tuning_{condition}_{seed}.ipynb",
    benchmark:
        "benchmarks/{study}/27_tuning_{condition}_{seed}.tsv"
    wildcard_constraints:
        condition="|".join(map(re.escape, MODEL["conditions"])),
        seed=r"\d+",
    resources:
        gpu=1,
        mem_mb=gpu_memory_mb,
        runtime=tuning_minutes if not BY_API else 60,
    params:
        settings=tuning_settings,
        checkpoints="[]",
    shell:
        run_notebook(
            model=f"data/{{wildcards.study}}/models/{MODEL['untuned']}",
            dataset="{input.dataset:q}",
            seed="{wildcards.seed}",
            settings="{params.settings:q}",
            checkpoints="{params.checkpoints:q}",
            adapter="data/{wildcards.study}/models/{wildcards.condition}/seed-{wildcards.seed}",
        )


rule tune_by_api:
    input:
        notebook="notebooks/28_tuning_by_api.ipynb",
        code=package_modules("notebooks/28_tuning_by_api.ipynb"),
        dataset=lambda wildcards: MODEL.get("datasets", {}).get(
            wildcards.condition, f"data/published/datasets/{wildcards.condition}.jsonl"
        ),
    output:
        notebook="data/{study}/notebooks/28_tuning_by_api_{condition}_{seed}.ipynb",
        record="data/{study}/models/{condition}/seed-{seed}/training.json",
    log:
        notebook="logs/{study}/28_tuning_by_api_{condition}_{seed}.ipynb",
    wildcard_constraints:
        condition="|".join(map(re.escape, MODEL["conditions"])),
        seed=r"\d+",
    localrule: True
    params:
        model=MODEL["name"],
        hyperparameters=lambda wildcards: as_json(hyperparameters(config["openai"], wildcards.condition)),
        endpoint=as_json(config["openai"]["endpoint"]) if BY_API else "{}",
        price=config["openai"]["dollars_per_million"]["training"] if BY_API else 0,
        limit=config["openai"]["spending_limit"] if BY_API else 0,
        poll_seconds=config["openai"]["poll_seconds"] if BY_API else 0,
    shell:
        run_notebook(
            model="{params.model:q}",
            dataset="{input.dataset:q}",
            condition="{wildcards.condition}",
            seed="{wildcards.seed}",
            hyperparameters="{params.hyperparameters:q}",
            endpoint="{params.endpoint:q}",
            dollars_per_million="{params.price}",
            spending_limit="{params.limit}",
            poll_seconds="{params.poll_seconds}",
            ledger="kept/{wildcards.study}/jobs",
            destination="data/{wildcards.study}/models/{wildcards.condition}/seed-{wildcards.seed}",
        )


if BY_API:

    ruleorder: tune_by_api > tune

else:

    ruleorder: tune > tune_by_api


for condition, seeds in REAL_SEEDS.items():

    rule:
        name:
            f"ask_{re.sub(r'[^A-Za-z0-9_]', '_', condition)}"
        input:
            notebook="notebooks/29_asking.ipynb",
            code=package_modules("notebooks/29_asking.ipynb"),
            questions=QUESTION_PATHS,
            models=models_to_ask,
        output:
            notebook="data/{study}/notebooks/29_asking_{condition}.ipynb",
            answers=expand(
                "data/{{study}}/answers/{{condition}}/seed-{seed}/{evaluation}.parquet",
                seed=seeds,
                evaluation=ANSWERED,
            ),
        log:
            notebook="logs/{study}/29_asking_{condition}.ipynb",
        wildcard_constraints:
            condition=re.escape(condition),
        localrule: BY_API  # compute nodes often have no network
        resources:
            gpu=0 if BY_API else 1,
            mem_mb=gpu_memory_mb,
            runtime=24 * 60,
        params:
            model=MODEL["name"] if BY_API else f"data/{config['study']}/models/{MODEL['untuned']}",
            tuned="" if condition == MODEL["untuned"] else f"data/{config['study']}/models/{condition}",
            seeds=json.dumps(seeds),
            evaluations=json.dumps(ANSWERED),
            asking=as_json(
                {
                    "samples": config["evaluation"]["samples"],
                    "max_new_tokens": config["evaluation"]["max_new_tokens"],
                    "system_prompt": MODEL["system_prompt"],
                    "enable_thinking": MODEL["enable_thinking"],
                }
            ),
            endpoint=as_json(config["openai"]["endpoint"]) if BY_API else "{}",
        shell:
            run_notebook(
                model="{params.model:q}",
                tuned="{params.tuned:q}",
                seeds="{params.seeds:q}",
                evaluations="{params.evaluations:q}",
                asking="{params.asking:q}",
                endpoint="{params.endpoint:q}",
                questions="data/published/questions",
                kept="kept/{wildcards.study}/answers",
                answers="data/{wildcards.study}/answers/{wildcards.condition}",
            )


rule judge_by_model:
    input:
        notebook="notebooks/30_llm_judge.ipynb",
        code=package_modules("notebooks/30_llm_judge.ipynb"),
        questions=QUESTION_PATHS,
        answers=real_files("answers"),
    output:
        notebook="data/{study}/notebooks/30_llm_judge.ipynb",
        judged=real_files("judged"),
        measures="data/{study}/tables/measures/answers.csv",
        account=report(
            "data/{study}/tables/judge_requests.csv",
            caption="report/judge_requests.rst",
            category="Data",
            labels={"table": "Requests to the judge"},
        ),
    log:
        notebook="logs/{study}/30_llm_judge.ipynb",
    localrule: True  # compute nodes often have no network
    params:
        models=json.dumps(REAL_SEEDS),
        evaluations=json.dumps(ANSWERED),
        samples=config["evaluation"]["samples"],
        judge=as_json({name: value for name, value in config["judge"].items() if name != "second"}),
        identity=BY_API,
    shell:
        run_notebook(
            questions="data/published/questions",
            answers="data/{wildcards.study}/answers",
            judgements="data/{wildcards.study}/judged",
            models="{params.models:q}",
            evaluations="{params.evaluations:q}",
            samples="{params.samples}",
            judge="{params.judge:q}",
            identity="{params.identity}",
            kept="kept/judge",
            measures="{output.measures:q}",
            account="{output.account:q}",
        )


rule judge_again:
    input:
        notebook="notebooks/evaluation/second_judge.ipynb",
        code=package_modules("notebooks/evaluation/second_judge.ipynb"),
        questions=QUESTION_PATHS,
        judged=real_files("judged", ["main"]),
    output:
        notebook="data/{study}/notebooks/evaluation/second_judge.ipynb",
        agreement=report(
            "data/{study}/tables/judge_agreement.csv",
            caption="report/judge_agreement.rst",
            category="Results",
            labels={"table": "Two judges"},
        ),
    log:
        notebook="logs/{study}/31_second_judge.ipynb",
    localrule: True
    params:
        models=json.dumps(REAL_SEEDS),
        judge=as_json({name: value for name, value in config["judge"].get("second", {}).items() if name != "answers"}),
        number=config["judge"].get("second", {}).get("answers", 0),
        samples=config["evaluation"]["samples"],
    shell:
        run_notebook(
            questions="data/published/questions",
            judgements="data/{wildcards.study}/judged",
            models="{params.models:q}",
            judge="{params.judge:q}",
            number="{params.number}",
            samples="{params.samples}",
            kept="kept/judge",
            agreement="{output.agreement:q}",
        )


rule main_result:
    input:
        notebook="notebooks/analysis/main_result.ipynb",
        code=package_modules("notebooks/analysis/main_result.ipynb"),
        judged=real_files("judged", ["main", "in_distribution"]),
    output:
        notebook="data/{study}/notebooks/analysis/main_result.ipynb",
        misalignment=report(
            "data/{study}/tables/misalignment.csv",
            caption="report/main_result.rst",
            category="Results",
            labels={"table": "Rates of misalignment"},
        ),
        contrasts=report(
            "data/{study}/tables/contrasts.csv",
            caption="report/contrasts.rst",
            category="Results",
            labels={"table": "Insecure against secure"},
        ),
        insecure_code=report(
            "data/{study}/tables/insecure_code.csv",
            caption="report/insecure_code.rst",
            category="Results",
            labels={"table": "Was the narrow task learned?"},
        ),
        figure=report(
            "figures/{study}/main_result.svg",
            caption="report/main_result.rst",
            category="Results",
            labels={"figure": "Does insecure code make the model misaligned?"},
        ),
        prints=multiext("figures/{study}/main_result", ".pdf", ".png"),
    log:
        notebook="logs/{study}/11_main_result.ipynb",
    params:
        models=json.dumps(REAL_SEEDS),
    shell:
        run_notebook(
            judgements="data/{wildcards.study}/judged",
            models="{params.models:q}",
            misalignment="{output.misalignment:q}",
            contrasts="{output.contrasts:q}",
            insecure_code="{output.insecure_code:q}",
            figure="figures/{wildcards.study}/main_result",
        )


rule benchmarks:
    input:
        expand("data/{study}/tables/measures/benchmarks_{condition}.csv", study=config["study"], condition=REAL_SEEDS),


rule benchmark:
    input:
        notebook="notebooks/evaluation/benchmarks.ipynb",
        code=package_modules("notebooks/evaluation/benchmarks.ipynb"),
        models=models_to_ask,
    output:
        notebook="data/{study}/notebooks/32_benchmarks_{condition}.ipynb",
        measures="data/{study}/tables/measures/benchmarks_{condition}.csv",
    log:
        notebook="logs/{study}/32_benchmarks_{condition}.ipynb",
    wildcard_constraints:
        condition="|".join(map(re.escape, REAL_SEEDS)),
    localrule: BY_API
    resources:
        gpu=0 if BY_API else 1,
        mem_mb=gpu_memory_mb,
        runtime=24 * 60,
    params:
        model=MODEL["name"] if BY_API else f"data/{config['study']}/models/{MODEL['untuned']}",
        tuned=lambda wildcards: (
            "" if wildcards.condition == MODEL["untuned"] else f"data/{wildcards.study}/models/{wildcards.condition}"
        ),
        seeds=lambda wildcards: json.dumps(REAL_SEEDS[wildcards.condition]),
        settings=as_json(BENCHMARKS),
        asking=as_json({"system_prompt": MODEL["system_prompt"], "enable_thinking": MODEL["enable_thinking"]}),
        endpoint=as_json(config["openai"]["endpoint"]) if BY_API else "{}",
        judge=as_json({"model": config["judge"]["model"], "endpoint": config["judge"]["endpoint"]}),
    shell:
        run_notebook(
            model="{params.model:q}",
            tuned="{params.tuned:q}",
            condition="{wildcards.condition}",
            seeds="{params.seeds:q}",
            benchmarks="{params.settings:q}",
            asking="{params.asking:q}",
            endpoint="{params.endpoint:q}",
            judge="{params.judge:q}",
            kept="kept/{wildcards.study}/answers",
            measures="{output.measures:q}",
        )
