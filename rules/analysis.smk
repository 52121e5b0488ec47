"""The results.

Does: runs each experiment of the registry that the study has the conditions and evaluations for, and gives each claim a
verdict. What a study did not measure is `not measured`. Without a judge there are no rates of misalignment, and the experiments
about them are left out.
Needs: data/STUDY/judged/, data/STUDY/tables/measures/, data/STUDY/dynamics.parquet, config/{claims,published}.yaml
Leaves: data/STUDY/tables/*.csv, figures/STUDY/*
"""

STUDIED = [each for each in EXPERIMENTS if each.is_part_of(STUDY)]


def of_study(value):
    """A setting or an input of an experiment, which may be a function of the study."""
    return value(STUDY) if callable(value) else f"data/{{study}}/{value}"


def caption_of(name, experiment):
    """The caption of a result, or the one that experiments of the paper share."""
    return next(each for each in (name, experiment, "experiment") if Path(f"rules/report/{each}.rst").exists())


def results_of(experiment):
    """The tables, measures and figures of an experiment, by the parameters of its notebook."""
    category = "Experiments" if experiment.published else "Results"
    kinds = [("data/{{study}}/tables/{}.csv", experiment.tables), ("figures/{{study}}/{}.svg", experiment.figures)]
    results = {
        parameter: shown(path.format(name), label, category, caption_of(name, experiment.name))
        for path, named in kinds
        for parameter, (name, label) in named.items()
    }
    return added_measures(experiment) | results | {"prints": prints(*(name for name, _ in experiment.figures.values()))}


def added_measures(experiment):
    """The table that an experiment adds to what the claims are tested on, by the parameter of its notebook."""
    if not experiment.measures:
        return {}
    parameter, name = experiment.measures
    return {parameter: f"data/{{study}}/tables/measures/{name}.csv"}


rule estimate:
    input:
        "data/{study}/study.json".format(study=STUDY.study),
    log:
        f"logs/{STUDY.study}/estimate.log",
    localrule: True
    script:
        "scripts/print_estimate.py"


for experiment in STUDIED:

    rule:
        name:
            experiment.name
        input:
            **{name: of_study(value) for name, value in experiment.inputs.items()},
            notebook=experiment.notebook,
            code=sorted({*package_modules(experiment.notebook), *(GRAMMAR if experiment.by_grammar else [])}),
            published=["config/published.yaml"] if experiment.published else [],
        output:
            **results_of(experiment),
            notebook=f"data/{{study}}/notebooks/{experiment.name}.ipynb",
        log:
            notebook=f"logs/{{study}}/{experiment.name}.ipynb",
        benchmark:
            f"benchmarks/{{study}}/{experiment.name}.tsv"
        priority: 10 if experiment.gpu else 0  # what loads models takes minutes, and would run alone at the end
        group:
            None if experiment.gpu else grouped("report")
        resources:
            **({"gpu": GPU, "mem_mb": host_memory_mb} if experiment.gpu else SMALL),
        params:
            **{name: in_order(of_study(value)) for name, value in experiment.settings.items()},
        script:
            "scripts/run_notebook.py"


if STUDY.tuned:

    rule claims:
        input:
            notebook="notebooks/analysis/claims.ipynb",
            code=package_modules("notebooks/analysis/claims.ipynb"),
            measures=[
                "data/{study}/tables/measures/answers.csv",
                *(f"data/{{study}}/tables/measures/benchmarks_{name}.csv" for name in STUDY.conditions if BENCHMARKS),
                *(path for each in STUDIED for path in added_measures(each).values()),
            ],
            claims="config/claims.yaml",
            schema="config/claims.schema.yaml",
        output:
            notebook="data/{study}/notebooks/claims.ipynb",
            verdicts=shown("data/{study}/tables/claims.csv", "The paper's claims, with verdicts"),
            parts=shown("data/{study}/tables/claim_parts.csv", "Every part of every claim"),
            figure=shown("figures/{study}/claims.svg", "Which claims of the paper are reproduced?"),
            prints=prints("claims"),
        log:
            notebook="logs/{study}/claims.ipynb",
        group:
            grouped("report")
        resources:
            **SMALL,
        params:
            evaluations=STUDY.asked,
        script:
            "scripts/run_notebook.py"
