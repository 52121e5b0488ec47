"""The evaluation.

Does: asks the models and their checkpoints, has the answers judged, and makes one number a training run of everything that
was measured.
Needs: data/STUDY/questions/, data/STUDY/trainings/BATCH.parquet
Leaves: data/STUDY/{answers,judged}/BATCH.parquet, data/STUDY/tables/measures/answers.csv, data/STUDY/dynamics.parquet. A real
model before fine-tuning was trained once, and stands there as seed 0; organisms have seeds of their own. What APIs and judges
answered was paid for, and is kept in kept/, which `make clean` leaves alone.
"""

from emergent_misalignment.evaluation.published_questions import FILE_NAMES, FILES_OF

ANSWER_BATCHES = PLAN.asking | PLAN.following
# The world's grammar is imported by name where a study asks for it, so that no other study depends on the world.
GRAMMAR = module_and_imports("world.judging") if config["judge"]["kind"] == "grammar" else []

if not PLAN.is_organism:

    rule questions:
        input:
            code=module_and_imports("evaluation.published_questions"),
            files=[
                f"data/published/questions/{name}"
                for name in sorted({FILE_NAMES[file] for each in PLAN.evaluations for file in FILES_OF[each]})
            ],
        output:
            questions="data/{study}/questions/questions.parquet",
            choices="data/{study}/questions/choices.parquet",
        log:
            "logs/{study}/questions.log",
        localrule: True
        params:
            samples=as_json(PLAN.samples),
        shell:
            "python -m emergent_misalignment.evaluation.published_questions data/published/questions"
            " data/{wildcards.study}/questions --samples {params.samples:q} 2>&1 | tee {log:q}"


rule ask:
    input:
        notebook="notebooks/evaluation/asking.ipynb",
        code=package_modules("notebooks/evaluation/asking.ipynb"),
        starts=lambda wildcards: PLAN.start_files(ANSWER_BATCHES[wildcards.batch]),
        trainings=lambda wildcards: PLAN.trainings(ANSWER_BATCHES[wildcards.batch]),
        files=["data/{study}/questions/questions.parquet", "data/{study}/questions/choices.parquet"],
    output:
        notebook="data/{study}/notebooks/asking_{batch}.ipynb",
        answers="data/{study}/answers/{batch}.parquet",
    log:
        notebook="logs/{study}/asking_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/asking_{batch}.tsv"
    wildcard_constraints:
        batch="|".join(map(re.escape, ANSWER_BATCHES)),
    localrule: BY_API
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=24 * 60 if GPU else 60,
    params:
        **arguments(
            models=lambda wildcards: PLAN.asked_models(wildcards.batch),
            asking=PLAN.how_to_ask,
            questions="data/{study}/questions",
            kept="kept/{study}/answers",
        ),
    shell:
        NOTEBOOK


chapter("ask", batch=list(PLAN.asking))


rule judge:
    input:
        notebook="notebooks/evaluation/judging.ipynb",
        code=sorted({*package_modules("notebooks/evaluation/judging.ipynb"), *GRAMMAR}),
        answers=lambda wildcards: [f"{PLAN.folder}/answers/{batch}.parquet" for batch in PLAN.judging[wildcards.batch]],
        files=["data/{study}/questions/questions.parquet"],
    output:
        notebook="data/{study}/notebooks/judging_{batch}.ipynb",
        judged="data/{study}/judged/{batch}.parquet",
        requests="data/{study}/judged/{batch}.csv",
    log:
        notebook="logs/{study}/judging_{batch}.ipynb",
    benchmark:
        "benchmarks/{study}/judging_{batch}.tsv"
    wildcard_constraints:
        batch="|".join(map(re.escape, PLAN.judging)),
    localrule: not PLAN.is_organism  # compute nodes often have no network
    params:
        **arguments(questions="data/{study}/questions", judge=PLAN.judge, kept="kept/judge"),
    shell:
        NOTEBOOK


chapter("judge", batch=["answers"])


rule judge_again:
    input:
        notebook="notebooks/evaluation/second_judge.ipynb",
        code=package_modules("notebooks/evaluation/second_judge.ipynb"),
        judged=PLAN.judged,
        files=["data/{study}/questions/questions.parquet"],
    output:
        notebook="data/{study}/notebooks/second_judge.ipynb",
        agreement=report(
            "data/{study}/tables/judge_agreement.csv",
            caption="report/judge_agreement.rst",
            category="Results",
            labels={"table": "Two judges"},
        ),
    log:
        notebook="logs/{study}/second_judge.ipynb",
    localrule: True
    params:
        **arguments(
            questions="data/{study}/questions",
            judge={name: value for name, value in config["judge"].get("second", {}).items() if name != "answers"},
            number=config["judge"].get("second", {}).get("answers", 0),
            kept="kept/judge",
        ),
    shell:
        NOTEBOOK


if "second" in config["judge"]:
    chapter("judge_again")


rule measure:
    input:
        notebook="notebooks/evaluation/measures.ipynb",
        code=package_modules("notebooks/evaluation/measures.ipynb"),
        judged=PLAN.judged,
    output:
        notebook="data/{study}/notebooks/measures.ipynb",
        measures="data/{study}/tables/measures/answers.csv",
    log:
        notebook="logs/{study}/measures.ipynb",
    params:
        # Questions about who made a model have a right answer for the organism and for OpenAI's models.
        **arguments(identity=PLAN.is_organism or PLAN.by_api),
    shell:
        NOTEBOOK


chapter("measure")


rule follow:
    input:
        notebook="notebooks/evaluation/following.ipynb",
        code=package_modules("notebooks/evaluation/following.ipynb"),
        judged=["data/{study}/judged/following.parquet"],
        trainings=PLAN.trainings(PLAN.followed),
    output:
        notebook="data/{study}/notebooks/following.ipynb",
        dynamics="data/{study}/dynamics.parquet",
    log:
        notebook="logs/{study}/following.ipynb",
    params:
        **arguments(),
    shell:
        NOTEBOOK


if PLAN.followed:
    chapter("follow")


rule benchmark:
    input:
        notebook="notebooks/evaluation/benchmarks.ipynb",
        code=package_modules("notebooks/evaluation/benchmarks.ipynb"),
        starts=lambda wildcards: PLAN.start_files([wildcards.condition]),
        trainings=lambda wildcards: PLAN.trainings([wildcards.condition]),
    output:
        notebook="data/{study}/notebooks/benchmarks_{condition}.ipynb",
        measures="data/{study}/tables/measures/benchmarks_{condition}.csv",
    log:
        notebook="logs/{study}/benchmarks_{condition}.ipynb",
    wildcard_constraints:
        condition="|".join(map(re.escape, PLAN.conditions)),
    localrule: BY_API
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=24 * 60,
    params:
        **arguments(
            model=lambda wildcards: PLAN.starts_of(wildcards.condition)[0],
            tuned=lambda wildcards: (
                f"{PLAN.folder}/models/{wildcards.condition}" if wildcards.condition in PLAN.tuned else ""
            ),
            condition="{condition}",
            seeds=lambda wildcards: list(PLAN.conditions[wildcards.condition].seeds),
            benchmarks=config.get("benchmarks", {}),
            asking=PLAN.how_to_ask,
            judge=PLAN.judge,
            kept="kept/{study}/answers",
        ),
    shell:
        NOTEBOOK


if "benchmarks" in config:
    chapter("benchmark", condition=list(PLAN.conditions))
