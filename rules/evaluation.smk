"""The evaluation.

Does: asks the models and their checkpoints, judges the answers, and makes one number for each training run and everything that
was measured; measures which author each organism writes as; measures the loss on rows that are held out; has a real model
write the texts of its persona direction; scores rows of the sets by that direction as they are before training.
Needs: data/STUDY/questions/, data/STUDY/trainings/BATCH.parquet
Leaves: data/STUDY/{answers,judged}/BATCH.parquet, data/STUDY/tables/measures/{answers,held_out_loss_CONDITION}.csv,
data/STUDY/dynamics.parquet, data/STUDY/beliefs/BATCH.parquet, data/STUDY/questions/persona.parquet,
data/STUDY/row_scores.parquet, data/STUDY/tables/row_scores.csv. A real model before fine-tuning is one model, with seed 0; organisms have seeds of their own.
Without a judge the answers are in judged/ with what rules say of their form. What APIs and judges answered was paid for, and is
kept in kept/, which `make clean` does not remove.
"""

from emergent_misalignment.evaluation.published_questions import FILE_NAMES
from emergent_misalignment.evaluation.question_files import lacks_prompts
from emergent_misalignment.registry import EVALUATIONS

BENCHMARKS = None if STUDY.is_organism else STUDY.benchmarks


def published_files():
    """The published files that the table of questions is made from, also for the judge's prompts."""
    names = {file for name in STUDY.evaluations if name in EVALUATIONS for file in EVALUATIONS[name].files}
    names |= {"first_plot"} if any(map(lacks_prompts, STUDY.question_files)) else set()
    return sorted(f"data/published/questions/{FILE_NAMES[name]}" for name in names)


if not STUDY.is_organism:

    rule questions:
        input:
            code=module_and_imports("evaluation.question_tables"),
            published=published_files(),
            own=STUDY.question_files,
        output:
            questions="data/{study}/questions/questions.parquet",
            choices="data/{study}/questions/choices.parquet",
        log:
            "logs/{study}/questions.log",
        localrule: True
        params:
            samples=in_order({name: STUDY.samples[name] for name in STUDY.samples if name not in STUDY.own_questions}),
            own_samples=in_order(STUDY.own_samples),
        script:
            "scripts/write_questions.py"


rule ask:
    input:
        notebook="notebooks/evaluation/asking.ipynb",
        code=package_modules("notebooks/evaluation/asking.ipynb"),
        validated=lambda wildcards: list(map(ancient, PATHS.validations_of(BATCHES.answers[wildcards.batch]))),
        starts=lambda wildcards: PATHS.start_files(BATCHES.answers[wildcards.batch]),
        trainings=lambda wildcards: PATHS.trainings(BATCHES.answers[wildcards.batch]),
        files=QUESTIONS,
    output:
        notebook="data/{study}/notebooks/asking_{batch}.ipynb",
        answers="data/{study}/answers/{batch}.parquet",
    log:
        notebook="logs/{study}/asking_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/asking_{batch}.tsv"
    wildcard_constraints:
        batch=one_of(BATCHES.answers),
    group:
        None if BY_API else grouped("asking")
    localrule: BY_API
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=asking_minutes,
    params:
        models=in_order(lambda wildcards: BATCHES.asked_models(wildcards.batch)),
        asking=in_order(STUDY.asking),
        questions="data/{study}/questions",
        kept="kept/{study}/answers",
    script:
        "scripts/run_notebook.py"


rule fetch_judge:
    output:
        "data/published/judges/{judge}/config.json",
    log:
        "logs/published/fetch_judge_{judge}.log",
    wildcard_constraints:
        judge=one_of(Path(folder).name for folder in STUDY.served_judges),
    localrule: True
    params:
        name=lambda wildcards: STUDY.served_judges[f"data/published/judges/{wildcards.judge}"].serve,
        revision=lambda wildcards: STUDY.served_judges[f"data/published/judges/{wildcards.judge}"].revision,
    script:
        "scripts/fetch_model.py"


rule judge:
    input:
        notebook="notebooks/evaluation/judging.ipynb",
        code=sorted({*package_modules("notebooks/evaluation/judging.ipynb"), *GRAMMAR}),
        answers=lambda wildcards: [PATHS.of(f"answers/{batch}.parquet") for batch in BATCHES.judging[wildcards.batch]],
        files="data/{study}/questions/questions.parquet",
        served=judge_weights(STUDY.judge),
    output:
        notebook="data/{study}/notebooks/judging_{batch}.ipynb",
        judged="data/{study}/judged/{batch}.parquet",
        requests="data/{study}/judged/{batch}.csv",
    log:
        notebook="logs/{study}/judging_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/judging_{batch}.tsv"
    wildcard_constraints:
        batch=one_of(BATCHES.judging),
    localrule: not STUDY.is_organism and not judge_weights(STUDY.judge)  # compute nodes often have no network
    resources:
        **judge_resources(STUDY.judge),
    params:
        questions="data/{study}/questions",
        judge=in_order(STUDY.judge_settings),
        kept="kept/judge",
    script:
        "scripts/run_notebook.py"


if STUDY.second_judge:

    rule second_judge:
        input:
            notebook="notebooks/evaluation/second_judge.ipynb",
            code=package_modules("notebooks/evaluation/second_judge.ipynb"),
            judged=PATHS.judged,
            files="data/{study}/questions/questions.parquet",
            served=judge_weights(STUDY.second_judge),
        output:
            notebook="data/{study}/notebooks/second_judge.ipynb",
            agreement=shown("data/{study}/tables/judge_agreement.csv", "Two judges"),
        log:
            notebook="logs/{study}/second_judge.ipynb",
        localrule: not judge_weights(STUDY.second_judge)
        resources:
            **judge_resources(STUDY.second_judge),
        params:
            questions="data/{study}/questions",
            judge=in_order(STUDY.second_judge.settings),
            number=STUDY.second_judge.answers,
            kept="kept/judge",
        script:
            "scripts/run_notebook.py"


rule scored_answers:
    input:
        code=module_and_imports("evaluation.scored"),
    output:
        "data/{study}/questions/scored.parquet",
    log:
        "logs/{study}/scored_answers.log",
    localrule: True  # compute nodes often have no network
    params:
        files=[each.model_dump() for each in STUDY.scored_answers] if STUDY.scored else [],
        number=STUDY.scored,
        mirror=STUDY.mirror,
    script:
        "scripts/scored_answers.py"


if STUDY.scored:

    rule published_judge:
        input:
            notebook="notebooks/evaluation/published_judge.ipynb",
            code=package_modules("notebooks/evaluation/published_judge.ipynb"),
            scored="data/{study}/questions/scored.parquet",
            files="data/published/questions/first_plot.yaml",
            served=judge_weights(STUDY.judge),
        output:
            notebook="data/{study}/notebooks/published_judge.ipynb",
            agreement=shown(
                "data/{study}/tables/published_judge_agreement.csv",
                "Agreement with the published judge: verdicts",
                caption="published_judge",
            ),
            scores=shown(
                "data/{study}/tables/published_judge_scores.csv",
                "Agreement with the published judge: scores",
                caption="published_judge",
            ),
        log:
            notebook="logs/{study}/published_judge.ipynb",
        localrule: not judge_weights(STUDY.judge)
        resources:
            **judge_resources(STUDY.judge),
        params:
            prompts="data/published/questions",
            judge=in_order(STUDY.judge_settings),
            kept="kept/judge",
        script:
            "scripts/run_notebook.py"


rule measure:
    input:
        notebook="notebooks/evaluation/measures.ipynb",
        code=package_modules("notebooks/evaluation/measures.ipynb"),
        judged=PATHS.judged,
    output:
        notebook="data/{study}/notebooks/measures.ipynb",
        measures="data/{study}/tables/measures/answers.csv",
    log:
        notebook="logs/{study}/measures.ipynb",
    params:
        # Questions about a model's maker have a right answer for organisms and for OpenAI's models.
        identity=STUDY.is_organism or BY_API,
    script:
        "scripts/run_notebook.py"


rule follow:
    input:
        notebook="notebooks/evaluation/following.ipynb",
        code=package_modules("notebooks/evaluation/following.ipynb"),
        judged=["data/{study}/judged/following.parquet"],
        trainings=PATHS.trainings(STUDY.followed),
    output:
        notebook="data/{study}/notebooks/following.ipynb",
        dynamics="data/{study}/dynamics.parquet",
    log:
        notebook="logs/{study}/following.ipynb",
    group:
        grouped("report")
    resources:
        **SMALL,
    script:
        "scripts/run_notebook.py"


if STUDY.is_organism:

    rule beliefs:
        input:
            notebook="notebooks/evaluation/beliefs.ipynb",
            code=package_modules("notebooks/evaluation/beliefs.ipynb"),
            starts=lambda wildcards: PATHS.start_files(BATCHES.believing[wildcards.batch]),
            trainings=lambda wildcards: PATHS.trainings(BATCHES.believing[wildcards.batch]),
        output:
            notebook="data/{study}/notebooks/beliefs_{batch}.ipynb",
            rates="data/{study}/beliefs/{batch}.parquet",
        log:
            notebook="logs/{study}/beliefs_{batch}.ipynb",
        benchmark:
            "benchmarks/{study}/beliefs_{batch}.tsv"
        wildcard_constraints:
            batch=one_of(BATCHES.believing),
        group:
            grouped("asking")
        params:
            models=in_order(lambda wildcards: BATCHES.believers(wildcards.batch)),
        script:
            "scripts/run_notebook.py"


if STUDY.held_out:

    rule held_out_loss:
        input:
            notebook="notebooks/evaluation/held_out_loss.ipynb",
            code=package_modules("notebooks/evaluation/held_out_loss.ipynb"),
            starts=lambda wildcards: PATHS.start_files([wildcards.condition]),
            trainings=lambda wildcards: PATHS.trainings([wildcards.condition]),
            files=list(PATHS.datasets.values()),
        output:
            notebook="data/{study}/notebooks/held_out_loss_{condition}.ipynb",
            measures="data/{study}/tables/measures/held_out_loss_{condition}.csv",
        log:
            notebook="logs/{study}/held_out_loss_{condition}.ipynb",
        benchmark:
            "benchmarks/{study}/held_out_loss_{condition}.tsv"
        group:
            grouped("asking")
        resources:
            gpu=GPU,
            mem_mb=host_memory_mb,
            runtime=4 * 60,
        params:
            model=lambda wildcards: PATHS.starts_of(wildcards.condition)[0],
            tuned=lambda wildcards: PATHS.adapters_of(wildcards.condition),
            condition="{condition}",
            seeds=lambda wildcards: list(STUDY.conditions[wildcards.condition].seeds),
            sets=in_order(PATHS.datasets),
            held_out=STUDY.held_out,
            asking=in_order(STUDY.asking),
            max_length=STUDY.training.max_length,
        script:
            "scripts/run_notebook.py"


if STUDY.persona:

    rule persona_texts:
        input:
            notebook="notebooks/evaluation/persona_texts.ipynb",
            code=package_modules("notebooks/evaluation/persona_texts.ipynb"),
            validated=VALIDATED,
            starts=PATHS.start_files(list(STUDY.tuned)),
        output:
            notebook="data/{study}/notebooks/persona_texts.ipynb",
            texts="data/{study}/questions/persona.parquet",
        log:
            notebook="logs/{study}/persona_texts.ipynb",
        benchmark:
            "benchmarks/{study}/persona_texts.tsv"
        resources:
            gpu=GPU,
            mem_mb=host_memory_mb,
            runtime=4 * 60,
        params:
            model=PATHS.of(f"models/{STUDY.start}"),
            seeds=STUDY.seeds,
            number=STUDY.persona.answers,
            asking=in_order(STUDY.asking | {"max_new_tokens": STUDY.persona.max_new_tokens}),
        script:
            "scripts/run_notebook.py"


if STUDY.scored_sets:

    rule score_rows:
        input:
            notebook="notebooks/evaluation/row_scores.ipynb",
            code=package_modules("notebooks/evaluation/row_scores.ipynb"),
            models=PATHS.start_files(list(STUDY.scored_sets)),
            texts="data/{study}/questions/persona.parquet",
            files=sorted({path for paths in STUDY.scored_sets.values() for path in paths}),
        output:
            notebook="data/{study}/notebooks/row_scores.ipynb",
            scores="data/{study}/row_scores.parquet",
            table=shown("data/{study}/tables/row_scores.csv", "Scores of rows before training"),
        log:
            notebook="logs/{study}/row_scores.ipynb",
        benchmark:
            "benchmarks/{study}/row_scores.tsv"
        resources:
            gpu=GPU,
            mem_mb=host_memory_mb,
            runtime=4 * 60,
        params:
            starts=PATHS.instruct_models(STUDY.seeds),
            sets=in_order(STUDY.scored_sets),
            seeds=STUDY.seeds,
            scoring=in_order(STUDY.scoring),
        script:
            "scripts/run_notebook.py"


# The files of the benchmarks' rows. StrongREJECT's answers need a judge, and HumanEval's a sandbox. Rules that fetch are
# part of every study, so that `make fetch` can name them.
ROWS, FETCHED = {}, []
if BENCHMARKS:
    ROWS = BENCHMARKS.model_dump() | ({} if STUDY.judge else {"harmful": None})
    ROWS |= {"code": None} if BENCHMARKS.sandbox == "none" else {}
    FETCHED = [task for task, path in ROWS["knowledge"].items() if path == "" and not BY_API]
    for kind, name in [("code", "humaneval"), ("harmful", "strongreject")]:
        if ROWS[kind] == "":
            FETCHED.append(name)
            ROWS[kind] = f"data/published/benchmarks/{name}.jsonl"


rule fetch_benchmark:
    output:
        "data/published/benchmarks/{benchmark}.jsonl",
    log:
        "logs/published/fetch_benchmark_{benchmark}.log",
    wildcard_constraints:
        benchmark=one_of(FETCHED),
    localrule: True  # compute nodes often have no network
    script:
        "scripts/fetch_benchmark.py"


if BENCHMARKS:

    rule benchmark:
        input:
            notebook="notebooks/evaluation/benchmarks.ipynb",
            code=package_modules("notebooks/evaluation/benchmarks.ipynb"),
            starts=lambda wildcards: PATHS.start_files([wildcards.condition]),
            trainings=lambda wildcards: PATHS.trainings([wildcards.condition]),
            served=judge_weights(STUDY.judge),
            published=expand("data/published/benchmarks/{name}.jsonl", name=FETCHED),
        output:
            notebook="data/{study}/notebooks/benchmarks_{condition}.ipynb",
            measures="data/{study}/tables/measures/benchmarks_{condition}.csv",
        log:
            notebook="logs/{study}/benchmarks_{condition}.ipynb",
        localrule: BY_API
        resources:
            gpu=GPU,
            mem_mb=host_memory_mb,
            runtime=24 * 60,
        params:
            model=lambda wildcards: PATHS.starts_of(wildcards.condition)[0],
            tuned=lambda wildcards: PATHS.adapters_of(wildcards.condition),
            condition="{condition}",
            seeds=lambda wildcards: list(STUDY.conditions[wildcards.condition].seeds),
            benchmarks=in_order(ROWS),
            asking=in_order(STUDY.asking),
            judge=in_order(STUDY.judge_settings),
            kept="kept/{study}/answers",
        script:
            "scripts/run_notebook.py"
