"""The models.

Does: downloads or links the weights of a published model, or makes them from a GGUF file; validates the model against the
study; fine-tunes every condition with every seed. For organisms one job makes all fine-tunings of an experiment, because
starting a job takes as long as one of them; for a real model a job is one fine-tuning, on a GPU or at OpenAI.
Needs: a model to start from, and the sets, the study's own or published ones; for a defence that a condition names, benign
rows, the texts of the persona direction, or another condition's models
Leaves: data/STUDY/models/CONDITION/seed-SEED/, with checkpoint-STEP/ in it for conditions that are followed, and the
contents of a batch, data/STUDY/trainings/BATCH.parquet; the benign rows of organisms, data/STUDY/datasets/benign.jsonl;
for a real model the record of the validation, data/STUDY/models/UNTUNED.json; for OpenAI's jobs their ids in
kept/STUDY/jobs/. An existing model has its weights in data/STUDY/models/CONDITION/, or its adapter in seed-0/ there, and
its record in data/STUDY/models/CONDITION.json.
"""

from emergent_misalignment.own_data.models import sources

ADAPTERS = [name for name, each in STUDY.existing.items() if each.adapter]
QUESTIONS = ["data/{study}/questions/questions.parquet", "data/{study}/questions/choices.parquet"]


def whole_models():
    """Name and revision of the whole models that are placed in the study: the untuned one, and existing ones."""
    if STUDY.is_organism or BY_API:
        return {}
    existing = {name: (each.model, each.revision) for name, each in STUDY.existing.items() if each.model}
    return {STUDY.start: (STUDY.model.name, STUDY.model.revision)} | existing


def files_of(name):
    """The files of an existing model or adapter that is in a folder."""
    return sources(STUDY.existing[name].existing) if name in STUDY.existing else []


rule fetch_model:
    input:
        files=lambda wildcards: files_of(wildcards.model),
    output:
        "data/{study}/models/{model}/config.json",
    log:
        "logs/{study}/fetch_model_{model}.log",
    wildcard_constraints:
        model=one_of(whole_models()),
    localrule: True  # compute nodes often have no network
    params:
        name=lambda wildcards: whole_models()[wildcards.model][0],
        revision=lambda wildcards: whole_models()[wildcards.model][1],
    script:
        "scripts/fetch_model.py"


rule validate_model:
    input:
        code=module_and_imports("models.requirements"),
        weights="data/{study}/models/{model}/config.json",
        sets=lambda wildcards: sorted(BATCHES.requirements(wildcards.model)["sets"]),
        questions=QUESTIONS,
    output:
        "data/{study}/models/{model}.json",
    log:
        "logs/{study}/validate_model_{model}.log",
    wildcard_constraints:
        model=one_of(whole_models()),
    localrule: True
    params:
        requirements=in_order(lambda wildcards: BATCHES.requirements(wildcards.model)),
    script:
        "scripts/validate_model.py"


rule fetch_adapter:
    input:
        files=lambda wildcards: files_of(wildcards.adapter),
    output:
        "data/{study}/models/{adapter}/seed-0/adapter_config.json",
    log:
        "logs/{study}/fetch_adapter_{adapter}.log",
    wildcard_constraints:
        adapter=one_of(ADAPTERS),
    localrule: True
    params:
        name=lambda wildcards: STUDY.existing[wildcards.adapter].adapter,
        revision=lambda wildcards: STUDY.existing[wildcards.adapter].revision,
    script:
        "scripts/fetch_adapter.py"


rule validate_adapter:
    input:
        code=module_and_imports("own_data.models"),
        adapter="data/{study}/models/{adapter}/seed-0/adapter_config.json",
        model=f"data/{{study}}/models/{STUDY.start}/config.json",
        questions=QUESTIONS,
    output:
        "data/{study}/models/{adapter}.json",
    log:
        "logs/{study}/validate_adapter_{adapter}.log",
    wildcard_constraints:
        adapter=one_of(ADAPTERS),
    localrule: True
    params:
        base="" if STUDY.is_organism else STUDY.model.name,
        requirements=in_order(lambda wildcards: BATCHES.requirements(wildcards.adapter)),
    script:
        "scripts/validate_adapter.py"


def conditions_of(wildcards):
    """The conditions of a batch of fine-tunings."""
    return list(BATCHES.finetunings(wildcards.batch))


if STUDY.is_organism and PATHS.helper_rows in PATHS.defence_files(list(STUDY.tuned)):

    rule benign_rows:
        input:
            code=module_and_imports("world.sets"),
        output:
            "data/{study}/datasets/benign.jsonl",
        log:
            "logs/{study}/benign_rows.log",
        localrule: True
        params:
            rows=STUDY.datasets.rows,
            seed=STUDY.seeds[0],
            authors=in_order(STUDY.authors_of(MAIN)),
        script:
            "scripts/write_benign.py"


rule finetune:
    input:
        notebook="notebooks/models/finetuning.ipynb",
        code=package_modules("notebooks/models/finetuning.ipynb"),
        starts=lambda wildcards: PATHS.start_files(conditions_of(wildcards)),
        gate=GATE,
        datasets=lambda wildcards: sorted(
            {path for each in BATCHES.finetunings(wildcards.batch).values() for path in each["datasets"]}
        ),
        defended_with=lambda wildcards: PATHS.defence_files(conditions_of(wildcards)),
    output:
        notebook="data/{study}/notebooks/finetuning_{batch}.ipynb",
        trainings="data/{study}/trainings/{batch}.parquet",
    log:
        notebook="logs/{study}/finetuning_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/finetuning_{batch}.tsv"
    wildcard_constraints:
        # Without the seeds of a real model: Snakemake would go through all of them for each fine-tuning.
        batch=one_of(BATCHES.tuning) if STUDY.is_organism else rf"({one_of(STUDY.tuned)})-\d+",
    localrule: BY_API
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=tuning_minutes,
    params:
        conditions=in_order(lambda wildcards: BATCHES.finetunings(wildcards.batch)),
        api=in_order(STUDY.tuning_api) if BY_API else {},
        ledger="kept/{study}/jobs",
        models="data/{study}/models",
    script:
        "scripts/run_notebook.py"
