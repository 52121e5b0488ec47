"""The models.

Does: downloads or links the weights of a published model, or makes them from a GGUF file; checks whether the model can be
trained and asked as the study wants; fine-tunes every condition with every seed. For the organism one job does all
fine-tunings of an experiment, because starting a job takes as long as one of them; of a real model a job is one fine-tuning,
on a GPU or at OpenAI.
Needs: a model to start from, and the sets, the study's own or published ones
Leaves: data/STUDY/models/CONDITION/seed-SEED/, with checkpoint-STEP/ in it for conditions that are followed, and the
contents of a batch, data/STUDY/trainings/BATCH.parquet; of a real model what the check found, data/STUDY/models/UNTUNED.json;
of OpenAI's jobs their ids in kept/STUDY/jobs/. A model that is given has its weights in data/STUDY/models/CONDITION/, or its
adapter in seed-0/ there, and what the check found of it in data/STUDY/models/CONDITION.json.
"""

from emergent_misalignment.own_data.models import sources

ADAPTERS = [name for name, each in PLAN.given.items() if each.adapter]
# Whole models that are put into the study: the untuned one, and those that are given.
WHOLE = [config.get("model", {}).get("untuned", "none"), *(name for name, each in PLAN.given.items() if each.model)]


def needs_of(name):
    """What the study wants of a whole model."""
    return PLAN.given_needs(name) if name in PLAN.given else PLAN.model_needs


rule fetch_model:
    input:
        files=lambda wildcards: sources(PLAN.to_fetch(wildcards.untuned)[0]) if wildcards.untuned in PLAN.given else [],
    output:
        "data/{study}/models/{untuned}/config.json",
    log:
        "logs/{study}/fetch_model_{untuned}.log",
    wildcard_constraints:
        untuned="|".join(map(re.escape, WHOLE)),
    localrule: True  # compute nodes often have no network
    params:
        name=lambda wildcards: PLAN.to_fetch(wildcards.untuned)[0],
        revision=lambda wildcards: PLAN.to_fetch(wildcards.untuned)[1],
    shell:
        "python -m emergent_misalignment.models.weights {params.name:q} $(dirname {output:q}) --revision={params.revision:q} 2>&1"
        " | tee {log:q}"


rule check_model:
    input:
        code=module_and_imports("models.requirements"),
        weights="data/{study}/models/{untuned}/config.json",
        sets=lambda wildcards: sorted(needs_of(wildcards.untuned)["sets"]),
        questions=["data/{study}/questions/questions.parquet", "data/{study}/questions/choices.parquet"],
    output:
        "data/{study}/models/{untuned}.json",
    log:
        "logs/{study}/check_model_{untuned}.log",
    wildcard_constraints:
        untuned="|".join(map(re.escape, WHOLE)),
    localrule: True
    params:
        needs=lambda wildcards: as_json(needs_of(wildcards.untuned)),
    shell:
        "python -m emergent_misalignment.models.requirements data/{wildcards.study}/models/{wildcards.untuned} {output:q}"
        " --requirements={params.needs:q} --questions {input.questions:q} 2>&1 | tee {log:q}"


rule fetch_adapter:
    input:
        files=lambda wildcards: sources(PLAN.given[wildcards.adapter].adapter),
    output:
        "data/{study}/models/{adapter}/seed-0/adapter_config.json",
    log:
        "logs/{study}/fetch_adapter_{adapter}.log",
    wildcard_constraints:
        adapter="|".join(map(re.escape, ADAPTERS)) or "none",
    localrule: True
    params:
        name=lambda wildcards: PLAN.given[wildcards.adapter].adapter,
        revision=lambda wildcards: PLAN.given[wildcards.adapter].revision,
    shell:
        "python -m emergent_misalignment.own_data.models place {params.name:q} $(dirname {output:q})"
        " --revision={params.revision:q} 2>&1 | tee {log:q}"


rule check_adapter:
    input:
        code=module_and_imports("own_data.models"),
        adapter="data/{study}/models/{adapter}/seed-0/adapter_config.json",
        model=f"data/{{study}}/models/{PLAN.start}/config.json",
        questions=["data/{study}/questions/questions.parquet", "data/{study}/questions/choices.parquet"],
    output:
        "data/{study}/models/{adapter}.json",
    log:
        "logs/{study}/check_adapter_{adapter}.log",
    wildcard_constraints:
        adapter="|".join(map(re.escape, ADAPTERS)) or "none",
    localrule: True
    params:
        base=config.get("model", {}).get("name", ""),
        needs=lambda wildcards: as_json(PLAN.given_needs(wildcards.adapter)),
    shell:
        "python -m emergent_misalignment.own_data.models check $(dirname {input.adapter:q}) $(dirname {input.model:q}) {output:q}"
        " --base={params.base:q} --needs={params.needs:q} --questions {input.questions:q} 2>&1 | tee {log:q}"


rule finetune:
    input:
        notebook="notebooks/models/finetuning.ipynb",
        code=package_modules("notebooks/models/finetuning.ipynb"),
        starts=lambda wildcards: PLAN.start_files(conditions_of(wildcards)),
        gate=GATE,
        datasets=lambda wildcards: sorted(
            {each for name in conditions_of(wildcards) for each in PLAN.datasets_of(name)}
        ),
    output:
        notebook="data/{study}/notebooks/finetuning_{batch}.ipynb",
        trainings="data/{study}/trainings/{batch}.parquet",
    log:
        notebook="logs/{study}/finetuning_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/finetuning_{batch}.tsv"
    wildcard_constraints:
        batch="|".join(map(re.escape, PLAN.tuning)) or "none",
    localrule: BY_API
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=tuning_minutes,
    params:
        **arguments(
            conditions=lambda wildcards: PLAN.tuning_conditions(wildcards.batch),
            api=PLAN.api,
            ledger="kept/{study}/jobs",
            models="data/{study}/models",
        ),
    shell:
        NOTEBOOK


if PLAN.tuning:
    chapter("finetune", batch=list(PLAN.tuning))
