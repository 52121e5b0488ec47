"""The evaluation.

Does: asks the models and their checkpoints, has the answers judged, and makes one number a training run of everything that
was measured; takes the loss on rows that were held out; has a real model write the texts of its persona direction; scores rows
of the sets by that direction as they are before training.
Needs: data/STUDY/questions/, data/STUDY/trainings/BATCH.parquet
Leaves: data/STUDY/{answers,judged}/BATCH.parquet, data/STUDY/tables/measures/{answers,held_out_loss_CONDITION}.csv,
data/STUDY/dynamics.parquet, data/STUDY/questions/persona.parquet, data/STUDY/row_scores.parquet,
data/STUDY/tables/row_scores.csv. A real model before fine-tuning was trained once, and stands
there as seed 0; organisms have seeds of their own. Without a judge the answers stand in judged/ with what rules say of their
form. What APIs and judges answered was paid for, and is kept in kept/, which `make clean` leaves alone.
"""

from emergent_misalignment.evaluation.question_files import lacks_prompts
from emergent_misalignment.evaluation.published_questions import FILE_NAMES, FILES_OF

ANSWER_BATCHES = PLAN.asking | PLAN.following
# The world's grammar is imported by name where a study asks for it, so that no other study depends on the world.
GRAMMAR = module_and_imports("world.judging") if PLAN.judge.get("kind") == "grammar" else []
SECOND = (config["judge"] or {}).get("second", {})  # another judge


# The published files that the table of questions is made from: also for the judge's prompts.
PUBLISHED_FILES = {
    file for each in PLAN.evaluations if each not in PLAN.own_questions for file in FILES_OF.get(each, [])
}
PUBLISHED_FILES |= {"first_plot"} if any(map(lacks_prompts, PLAN.question_files)) else set()


def served(judge):
    """The file that says that the model of a judge that runs here is there."""
    return [f"{judge['serve']}/config.json"] if "serve" in judge else []


def judge_resources(judge):
    """A judge that runs here has a GPU for itself, unless the study does without one."""
    if "serve" not in judge:
        return {}
    return {"gpu": int(config.get("model", {}).get("gpu", True)), "mem_mb": 64000, "runtime": 24 * 60}


if not PLAN.is_organism:

    rule questions:
        input:
            code=module_and_imports("evaluation.question_tables"),
            files=[
                *(
                    f"data/published/questions/{FILE_NAMES[file]}"
                    for file in sorted(PUBLISHED_FILES, key=FILE_NAMES.get)
                ),
                *PLAN.question_files,
            ],
        output:
            questions="data/{study}/questions/questions.parquet",
            choices="data/{study}/questions/choices.parquet",
        log:
            "logs/{study}/questions.log",
        localrule: True
        params:
            samples=as_json(PLAN.table_of_questions),
        shell:
            "python -m emergent_misalignment.evaluation.question_tables data/published/questions"
            " data/{wildcards.study}/questions --samples {params.samples:q} 2>&1 | tee {log:q}"


rule ask:
    input:
        notebook="notebooks/evaluation/asking.ipynb",
        code=package_modules("notebooks/evaluation/asking.ipynb"),
        door=lambda wildcards: [ancient(path) for path in PLAN.doors(ANSWER_BATCHES[wildcards.batch])],
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


rule fetch_judge:
    output:
        "data/published/judges/{judge}/config.json",
    log:
        "logs/published/fetch_judge_{judge}.log",
    wildcard_constraints:
        judge="|".join(re.escape(Path(folder).name) for folder in PLAN.served) or "none",
    localrule: True
    params:
        model=lambda wildcards: PLAN.served[f"data/published/judges/{wildcards.judge}"],
    shell:
        "python -m emergent_misalignment.models.weights {params.model[serve]:q} $(dirname {output:q})"
        " --revision={params.model[revision]:q} 2>&1 | tee {log:q}"


rule judge:
    input:
        notebook="notebooks/evaluation/judging.ipynb",
        code=sorted({*package_modules("notebooks/evaluation/judging.ipynb"), *GRAMMAR}),
        answers=lambda wildcards: [f"{PLAN.folder}/answers/{batch}.parquet" for batch in PLAN.judging[wildcards.batch]],
        files=["data/{study}/questions/questions.parquet"],
        served=served(PLAN.judge),
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
    localrule: not PLAN.is_organism and "serve" not in PLAN.judge  # compute nodes often have no network
    resources:
        **judge_resources(PLAN.judge),
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
        served=served(PLAN.second_judge),
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
    localrule: "serve" not in PLAN.second_judge
    resources:
        **judge_resources(PLAN.second_judge),
    params:
        **arguments(
            questions="data/{study}/questions",
            judge=PLAN.second_judge,
            number=SECOND.get("answers", 0),
            kept="kept/judge",
        ),
    shell:
        NOTEBOOK


if SECOND:
    chapter("judge_again")


rule scored_answers:
    input:
        code=module_and_imports("evaluation.scored"),
    output:
        "data/{study}/questions/scored.parquet",
    log:
        "logs/{study}/scored_answers.log",
    localrule: True  # compute nodes often have no network
    params:
        files=as_json(PLAN.scored.get("files", [])),
        number=PLAN.scored.get("number", 0),
        mirror=config["mirror"],
    shell:
        "python -m emergent_misalignment.evaluation.scored {params.files:q} {output:q} --number={params.number}"
        " --mirror={params.mirror:q} 2>&1 | tee {log:q}"


rule published_judge:
    input:
        notebook="notebooks/evaluation/published_judge.ipynb",
        code=package_modules("notebooks/evaluation/published_judge.ipynb"),
        scored="data/{study}/questions/scored.parquet",
        files=["data/published/questions/first_plot.yaml"],
        served=served(PLAN.judge),
    output:
        notebook="data/{study}/notebooks/published_judge.ipynb",
        agreement=report(
            "data/{study}/tables/published_judge_agreement.csv",
            caption="report/published_judge.rst",
            category="Results",
            labels={"table": "The judge beside the published one: verdicts"},
        ),
        scores=report(
            "data/{study}/tables/published_judge_scores.csv",
            caption="report/published_judge.rst",
            category="Results",
            labels={"table": "The judge beside the published one: scores"},
        ),
    log:
        notebook="logs/{study}/published_judge.ipynb",
    localrule: "serve" not in PLAN.judge
    resources:
        **judge_resources(PLAN.judge),
    params:
        **arguments(prompts="data/published/questions", judge=PLAN.judge, kept="kept/judge"),
    shell:
        NOTEBOOK


if PLAN.scored:
    chapter("published_judge")


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


rule held_out_loss:
    input:
        notebook="notebooks/evaluation/held_out_loss.ipynb",
        code=package_modules("notebooks/evaluation/held_out_loss.ipynb"),
        starts=lambda wildcards: PLAN.start_files([wildcards.condition]),
        trainings=lambda wildcards: PLAN.trainings([wildcards.condition]),
        files=list(PLAN.datasets.values()),
    output:
        notebook="data/{study}/notebooks/held_out_loss_{condition}.ipynb",
        measures="data/{study}/tables/measures/held_out_loss_{condition}.csv",
    log:
        notebook="logs/{study}/held_out_loss_{condition}.ipynb",
    benchmark:
        "benchmarks/{study}/held_out_loss_{condition}.tsv"
    wildcard_constraints:
        condition="|".join(map(re.escape, PLAN.conditions)),
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=4 * 60,
    params:
        **arguments(
            model=lambda wildcards: PLAN.starts_of(wildcards.condition)[0],
            tuned=lambda wildcards: PLAN.adapters_of(wildcards.condition),
            condition="{condition}",
            seeds=lambda wildcards: list(PLAN.conditions[wildcards.condition].seeds),
            sets=PLAN.datasets,
            held_out=PLAN.held_out,
            asking=PLAN.how_to_ask,
            max_length=config.get("finetuning", {}).get("max_length", 0),
        ),
    shell:
        NOTEBOOK


if PLAN.held_out:
    chapter("held_out_loss", condition=list(PLAN.conditions))


if not PLAN.is_organism:

    rule persona_texts:
        input:
            notebook="notebooks/evaluation/persona_texts.ipynb",
            code=package_modules("notebooks/evaluation/persona_texts.ipynb"),
            door=DOOR,
            starts=PLAN.start_files(list(PLAN.tuned)),
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
            **arguments(
                model=f"{PLAN.folder}/models/{PLAN.start}",
                seeds=config["seeds"],
                number=PLAN.persona.get("answers", 0),
                asking=PLAN.how_to_ask | {"max_new_tokens": PLAN.persona.get("max_new_tokens", 0)},
            ),
        shell:
            NOTEBOOK


if PLAN.persona:
    chapter("persona_texts")


rule score_rows:
    input:
        notebook="notebooks/evaluation/row_scores.ipynb",
        code=package_modules("notebooks/evaluation/row_scores.ipynb"),
        models=PLAN.start_files(list(PLAN.scored_sets)),
        texts="data/{study}/questions/persona.parquet",
        files=sorted({path for paths in PLAN.scored_sets.values() for path in paths}),
    output:
        notebook="data/{study}/notebooks/row_scores.ipynb",
        scores="data/{study}/row_scores.parquet",
        table=report(
            "data/{study}/tables/row_scores.csv",
            caption="report/row_scores.rst",
            category="Results",
            labels={"table": "Scores of rows before training"},
        ),
    log:
        notebook="logs/{study}/row_scores.ipynb",
    benchmark:
        "benchmarks/{study}/row_scores.tsv"
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
        runtime=4 * 60,
    params:
        **arguments(
            starts=PLAN.instruct_models,
            sets=PLAN.scored_sets,
            seeds=config["seeds"],
            scoring=PLAN.scoring if PLAN.scored_sets else {},
        ),
    shell:
        NOTEBOOK


if PLAN.scored_sets:
    chapter("score_rows")


rule benchmark:
    input:
        notebook="notebooks/evaluation/benchmarks.ipynb",
        code=package_modules("notebooks/evaluation/benchmarks.ipynb"),
        starts=lambda wildcards: PLAN.start_files([wildcards.condition]),
        trainings=lambda wildcards: PLAN.trainings([wildcards.condition]),
        served=served(PLAN.judge),
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
            tuned=lambda wildcards: PLAN.adapters_of(wildcards.condition),
            condition="{condition}",
            seeds=lambda wildcards: list(PLAN.conditions[wildcards.condition].seeds),
            # StrongREJECT's answers need a judge.
            benchmarks=config.get("benchmarks", {}) | ({} if PLAN.judge else {"harmful": None}),
            asking=PLAN.how_to_ask,
            judge=PLAN.judge,
            kept="kept/{study}/answers",
        ),
    shell:
        NOTEBOOK


if "benchmarks" in config:
    chapter("benchmark", condition=list(PLAN.conditions))
