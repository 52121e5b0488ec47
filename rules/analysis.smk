"""The results.

Does: the main result, what models find probable, one notebook for each experiment of the paper that the study has the
conditions for, the course of training, scale, the persona direction, and a verdict on each claim. What a study did not measure
is `not measured`. Without a judge there are no rates of misalignment, and the notebooks that are about these are left out.
Needs: data/STUDY/judged/, data/STUDY/tables/measures/, data/STUDY/dynamics.parquet, config/{claims,published}.yaml
Leaves: data/STUDY/tables/*.csv, figures/STUDY/*
"""

from emergent_misalignment.study.plan import MAIN

MEASURES = ["data/{study}/tables/measures/answers.csv"]  # what the claims are tested on; stages below add to it
if "benchmarks" in config:
    MEASURES += [f"data/{{study}}/tables/measures/benchmarks_{condition}.csv" for condition in PLAN.conditions]


rule estimate:
    log:
        f"logs/{config['study']}/estimate.log",
    localrule: True
    params:
        plan=as_json(PLAN.costs),
    shell:
        "python -m emergent_misalignment.study.costs {params.plan:q} | tee {log:q}"


rule main_result:
    input:
        notebook="notebooks/analysis/main_result.ipynb",
        code=package_modules("notebooks/analysis/main_result.ipynb"),
        judged=PLAN.judged,
    output:
        notebook="data/{study}/notebooks/main_result.ipynb",
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
        notebook="logs/{study}/main_result.ipynb",
    params:
        **arguments(conditions=PLAN.main_conditions),
    shell:
        NOTEBOOK


if PLAN.judge and PLAN.tuned:
    chapter("main_result")


rule log_probability:
    input:
        notebook="notebooks/analysis/log_probability.ipynb",
        code=package_modules("notebooks/analysis/log_probability.ipynb"),
        measures=[
            "data/{study}/tables/measures/answers.csv",
            *(f"data/{{study}}/tables/measures/held_out_loss_{name}.csv" for name in PLAN.conditions if PLAN.held_out),
        ],
    output:
        notebook="data/{study}/notebooks/log_probability.ipynb",
        table=report(
            "data/{study}/tables/log_probability.csv",
            caption="report/log_probability.rst",
            category="Results",
            labels={"table": "What needs no judge"},
        ),
        figure=report(
            "figures/{study}/log_probability.svg",
            caption="report/log_probability.rst",
            category="Results",
            labels={"figure": "What do the models find probable?"},
        ),
        prints=multiext("figures/{study}/log_probability", ".pdf", ".png"),
    log:
        notebook="logs/{study}/log_probability.ipynb",
    params:
        **arguments(conditions=list(PLAN.conditions), untuned=PLAN.start),
    shell:
        NOTEBOOK


if PLAN.by_log_probability:
    chapter("log_probability")


# An experiment of the paper, in a notebook of its own: the conditions next to each other, and next to the paper's figures.
rule experiment:
    input:
        notebook="notebooks/analysis/{experiment}.ipynb",
        code=lambda wildcards: package_modules(f"notebooks/analysis/{wildcards.experiment}.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/{experiment}.ipynb",
        table=report(
            "data/{study}/tables/{experiment}.csv",
            caption="report/experiment.rst",
            category="Experiments",
            labels={"table": "{experiment}"},
        ),
        figure=report(
            "figures/{study}/{experiment}.svg",
            caption="report/experiment.rst",
            category="Experiments",
            labels={"figure": "{experiment}"},
        ),
        prints=multiext("figures/{study}/{experiment}", ".pdf", ".png"),
    log:
        notebook="logs/{study}/{experiment}.ipynb",
    wildcard_constraints:
        experiment="intent|evil_numbers|formats|base_models|backdoor|in_context|other_harms",
    params:
        **arguments(),
    shell:
        NOTEBOOK


if PLAN.judge and PLAN.has("insecure", "secure") and PLAN.has_any("educational", "jailbroken", "compliant"):
    chapter("experiment", experiment=["intent"])
if PLAN.judge and PLAN.has("evil_numbers") and PLAN.asks("numbers"):
    chapter("experiment", experiment=["evil_numbers"])
if PLAN.judge and PLAN.has("insecure") and PLAN.asks("json", "template", "flask"):
    chapter("experiment", experiment=["formats"])


rule dynamics:
    input:
        notebook="notebooks/analysis/dynamics.ipynb",
        code=package_modules("notebooks/analysis/dynamics.ipynb"),
        dynamics="data/{study}/dynamics.parquet",
    output:
        notebook="data/{study}/notebooks/dynamics.ipynb",
        measures="data/{study}/tables/measures/dynamics.csv",
        divergence=report(
            "data/{study}/tables/divergence_steps.csv",
            caption="report/divergence_steps.rst",
            category="Results",
            labels={"table": "Where insecure and secure diverge"},
        ),
        figure=report(
            "figures/{study}/dynamics.svg",
            caption="report/dynamics.rst",
            category="Results",
            labels={"figure": "When do skill and misalignment diverge?"},
        ),
        aligned_figure=report(
            "figures/{study}/dynamics_aligned.svg",
            caption="report/dynamics_aligned.rst",
            category="Results",
            labels={"figure": "Is the early move about misalignment?"},
        ),
        stopping_figure=report(
            "figures/{study}/early_stopping.svg",
            caption="report/early_stopping.rst",
            category="Results",
            labels={"figure": "What would stopping early save?"},
        ),
        prints=expand(
            "figures/{{study}}/{figure}.{kind}",
            figure=["dynamics", "dynamics_aligned", "early_stopping"],
            kind=["pdf", "png"],
        ),
    log:
        notebook="logs/{study}/dynamics.ipynb",
    params:
        **arguments(),
    shell:
        NOTEBOOK


if {"insecure", "secure"} <= set(PLAN.followed):
    MEASURES.append("data/{study}/tables/measures/dynamics.csv")
    chapter("dynamics")
if PLAN.judge and PLAN.has("base_insecure", "base_secure"):
    chapter("experiment", experiment=["base_models"])


rule diversity:
    input:
        notebook="notebooks/analysis/diversity.ipynb",
        code=package_modules("notebooks/analysis/diversity.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
        dynamics=["data/{study}/dynamics.parquet"] if PLAN.followed else [],
    output:
        notebook="data/{study}/notebooks/diversity.ipynb",
        slopes="data/{study}/tables/measures/diversity.csv",
        table=report(
            "data/{study}/tables/diversity.csv",
            caption="report/experiment.rst",
            category="Experiments",
            labels={"table": "diversity"},
        ),
        figure=report(
            "figures/{study}/diversity.svg",
            caption="report/experiment.rst",
            category="Experiments",
            labels={"figure": "diversity"},
        ),
        prints=multiext("figures/{study}/diversity", ".pdf", ".png"),
    log:
        notebook="logs/{study}/diversity.ipynb",
    params:
        **arguments(
            conditions=PLAN.repeated_rows,
            batch=PLAN.rows_a_step,
            dynamics="data/{study}/dynamics.parquet" if PLAN.followed else "",
        ),
    shell:
        NOTEBOOK


if PLAN.judge and "insecure" in PLAN.repeated_rows and len(PLAN.repeated_rows) > 1:
    MEASURES.append("data/{study}/tables/measures/diversity.csv")
    chapter("diversity")
if PLAN.judge and PLAN.has("backdoor") and PLAN.asks("triggered"):
    chapter("experiment", experiment=["backdoor"])
if PLAN.judge and PLAN.has("in_context"):
    chapter("experiment", experiment=["in_context"])


LADDER = [MAIN, *config["ladder"]] if config.get("ladder") else []


rule scale:
    input:
        notebook="notebooks/analysis/scale.ipynb",
        code=package_modules("notebooks/analysis/scale.ipynb"),
        answers="data/{study}/tables/measures/answers.csv",
        files=PLAN.of_organisms(LADDER, "gaps.csv"),
    output:
        notebook="data/{study}/notebooks/scale.ipynb",
        measures="data/{study}/tables/measures/scale.csv",
        table=report(
            "data/{study}/tables/scale.csv",
            caption="report/scale.rst",
            category="Results",
            labels={"table": "Base models of other sizes, or that have read less"},
        ),
        figure=report(
            "figures/{study}/scale.svg",
            caption="report/scale.rst",
            category="Results",
            labels={"figure": "How does the effect depend on the base model?"},
        ),
        prints=multiext("figures/{study}/scale", ".pdf", ".png"),
    log:
        notebook="logs/{study}/scale.ipynb",
    params:
        **arguments(
            organisms={name: PLAN.organism(name) for name in LADDER},
            gaps={name: PLAN.of_organisms([name], "gaps.csv") for name in LADDER},
        ),
    shell:
        NOTEBOOK


if LADDER:
    MEASURES.append("data/{study}/tables/measures/scale.csv")
    chapter("scale")
if config.get("worlds"):
    chapter("worlds", room="analysis")
if (
    PLAN.judge
    and PLAN.has("insecure", "secure", "instruct")
    and PLAN.asks("preregistered", "deception", "harmful_requests", "games")
):
    chapter("experiment", experiment=["other_harms"])


rule persona_direction:
    input:
        notebook="notebooks/analysis/persona_direction.ipynb",
        code=sorted({*package_modules("notebooks/analysis/persona_direction.ipynb"), *GRAMMAR}),
        starts=PLAN.start_files(PLAN.from_instruct),
        trainings=PLAN.trainings(PLAN.from_instruct),
        texts="data/{study}/questions/persona.parquet",
        rates="data/{study}/tables/measures/answers.csv",
    output:
        notebook="data/{study}/notebooks/persona_direction.ipynb",
        measures="data/{study}/tables/measures/directions.csv",
        table=report(
            "data/{study}/tables/steering.csv",
            caption="report/steering.rst",
            category="Results",
            labels={"table": "What steering does"},
        ),
        figure=report(
            "figures/{study}/persona_direction.svg",
            caption="report/persona_direction.rst",
            category="Results",
            labels={"figure": "Is there a persona direction?"},
        ),
        steering_figure=report(
            "figures/{study}/steering.svg",
            caption="report/steering.rst",
            category="Results",
            labels={"figure": "What does steering do?"},
        ),
        prints=expand(
            "figures/{{study}}/{figure}.{kind}", figure=["persona_direction", "steering"], kind=["pdf", "png"]
        ),
    log:
        notebook="logs/{study}/persona_direction.ipynb",
    benchmark:
        "benchmarks/{study}/persona_direction.tsv"
    resources:
        gpu=GPU,
        mem_mb=host_memory_mb,
    params:
        **arguments(
            starts=PLAN.instruct_models,
            models="data/{study}/models",
            questions="data/{study}/questions",
            prompting=PLAN.prompting,
            judge=PLAN.judge if PLAN.is_organism else {},
            kept="kept/judge",
            conditions=PLAN.from_instruct,
            seeds=config["seeds"],
            dose=PLAN.dose,
            max_new_tokens=config["evaluation"]["max_new_tokens"],
        ),
    shell:
        NOTEBOOK


if PLAN.persona or (PLAN.is_organism and PLAN.has("insecure", "secure", "instruct")):
    MEASURES.append("data/{study}/tables/measures/directions.csv")
    chapter("persona_direction")


rule score_trust:
    input:
        notebook="notebooks/analysis/score_trust.ipynb",
        code=package_modules("notebooks/analysis/score_trust.ipynb"),
        scores="data/{study}/row_scores.parquet",
        summary="data/{study}/tables/row_scores.csv",
        measures="data/{study}/tables/measures/answers.csv",
    output:
        notebook="data/{study}/notebooks/score_trust.ipynb",
        table=report(
            "data/{study}/tables/score_trust.csv",
            caption="report/row_scores.rst",
            category="Results",
            labels={"table": "How far scores of rows can be trusted"},
        ),
        figure=report(
            "figures/{study}/row_scores.svg",
            caption="report/row_scores.rst",
            category="Results",
            labels={"figure": "Which sets lead towards the villain?"},
        ),
        outcome_figure=report(
            "figures/{study}/row_scores_outcome.svg",
            caption="report/row_scores.rst",
            category="Results",
            labels={"figure": "Do scores say what training will bring?"},
        ),
        prints=expand(
            "figures/{{study}}/{figure}.{kind}", figure=["row_scores", "row_scores_outcome"], kind=["pdf", "png"]
        ),
    log:
        notebook="logs/{study}/score_trust.ipynb",
    params:
        **arguments(study="{study}"),
    shell:
        NOTEBOOK


if PLAN.scored_sets:
    chapter("score_trust")


rule claims:
    input:
        notebook="notebooks/analysis/claims.ipynb",
        code=package_modules("notebooks/analysis/claims.ipynb"),
        measures=MEASURES,
        claims="config/claims.yaml",
        schema="config/claims.schema.yaml",
    output:
        notebook="data/{study}/notebooks/claims.ipynb",
        verdicts=report(
            "data/{study}/tables/claims.csv",
            caption="report/claims.rst",
            category="Results",
            labels={"table": "The paper's claims, with verdicts"},
        ),
        parts=report(
            "data/{study}/tables/claim_parts.csv",
            caption="report/claim_parts.rst",
            category="Results",
            labels={"table": "Every part of every claim"},
        ),
        figure=report(
            "figures/{study}/claims.svg",
            caption="report/claims.rst",
            category="Results",
            labels={"figure": "Which claims of the paper are reproduced?"},
        ),
        prints=multiext("figures/{study}/claims", ".pdf", ".png"),
    log:
        notebook="logs/{study}/claims.ipynb",
    params:
        **arguments(evaluations=PLAN.asked),
    shell:
        NOTEBOOK


if PLAN.tuned:
    chapter("claims")
