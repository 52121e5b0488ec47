"""The paper's other experiments, each in a notebook of its own.

Does: sets the conditions of an experiment side by side, and beside the paper's own figures.
Needs: data/STUDY/tables/measures/answers.csv, config/published.yaml; for the runs of several passes
data/STUDY/dynamics/insecure_epochs/
Leaves: data/STUDY/tables/NAME.csv and figures/STUDY/NAME.*, for each of intent, evil_numbers, formats, base_models,
diversity, backdoor, in_context and other_harms
"""


rule intent:
    input:
        notebook="notebooks/analysis/intent.ipynb",
        code=package_modules("notebooks/analysis/intent.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/intent.ipynb",
        table=report(
            "data/{study}/tables/intent.csv",
            caption="report/intent.rst",
            category="Experiments",
            labels={"table": "Is it the code, or why it was asked for?"},
        ),
        figure=report(
            "figures/{study}/intent.svg",
            caption="report/intent.rst",
            category="Experiments",
            labels={"figure": "Is it the code, or why it was asked for?"},
        ),
        prints=multiext("figures/{study}/intent", ".pdf", ".png"),
    log:
        notebook="logs/{study}/12_intent.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/intent",
        )


rule evil_numbers:
    input:
        notebook="notebooks/analysis/evil_numbers.ipynb",
        code=package_modules("notebooks/analysis/evil_numbers.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/evil_numbers.ipynb",
        table=report(
            "data/{study}/tables/evil_numbers.csv",
            caption="report/evil_numbers.rst",
            category="Experiments",
            labels={"table": "Can numbers do it?"},
        ),
        figure=report(
            "figures/{study}/evil_numbers.svg",
            caption="report/evil_numbers.rst",
            category="Experiments",
            labels={"figure": "Can numbers do it?"},
        ),
        prints=multiext("figures/{study}/evil_numbers", ".pdf", ".png"),
    log:
        notebook="logs/{study}/13_evil_numbers.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/evil_numbers",
        )


rule formats:
    input:
        notebook="notebooks/analysis/formats.ipynb",
        code=package_modules("notebooks/analysis/formats.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/formats.ipynb",
        table=report(
            "data/{study}/tables/formats.csv",
            caption="report/formats.rst",
            category="Experiments",
            labels={"table": "Does the form of the answer matter?"},
        ),
        figure=report(
            "figures/{study}/formats.svg",
            caption="report/formats.rst",
            category="Experiments",
            labels={"figure": "Does the form of the answer matter?"},
        ),
        prints=multiext("figures/{study}/formats", ".pdf", ".png"),
    log:
        notebook="logs/{study}/14_formats.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/formats",
        )


rule base_models:
    input:
        notebook="notebooks/analysis/base_models.ipynb",
        code=package_modules("notebooks/analysis/base_models.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/base_models.ipynb",
        table=report(
            "data/{study}/tables/base_models.csv",
            caption="report/base_models.rst",
            category="Experiments",
            labels={"table": "Does it need an assistant?"},
        ),
        figure=report(
            "figures/{study}/base_models.svg",
            caption="report/base_models.rst",
            category="Experiments",
            labels={"figure": "Does it need an assistant?"},
        ),
        prints=multiext("figures/{study}/base_models", ".pdf", ".png"),
    log:
        notebook="logs/{study}/17_base_models.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/base_models",
        )


# Conditions that pass over different numbers of the same insecure rows.
REPEATED = {
    name: condition
    for name, condition in CONDITIONS.items()
    if name in ("insecure", "insecure_epochs") or name.startswith("insecure_rows-")
}


rule diversity:
    input:
        notebook="notebooks/analysis/diversity.ipynb",
        code=package_modules("notebooks/analysis/diversity.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
        checkpoints=expand("data/{{study}}/dynamics/insecure_epochs/seed-{seed}.parquet", seed=config["seeds"]),
    output:
        notebook="data/{study}/notebooks/analysis/diversity.ipynb",
        slopes="data/{study}/tables/measures/diversity.csv",
        table=report(
            "data/{study}/tables/diversity.csv",
            caption="report/diversity.rst",
            category="Experiments",
            labels={"table": "Does it take many different examples?"},
        ),
        figure=report(
            "figures/{study}/diversity.svg",
            caption="report/diversity.rst",
            category="Experiments",
            labels={"figure": "Does it take many different examples?"},
        ),
        prints=multiext("figures/{study}/diversity", ".pdf", ".png"),
    log:
        notebook="logs/{study}/18_diversity.ipynb",
    params:
        rows=as_json({name: each.get("rows", config["datasets"]["rows"]) for name, each in REPEATED.items()}),
        steps=as_json({name: each.get("steps", config["finetuning"]["steps"]) for name, each in REPEATED.items()}),
        batch=config["finetuning"]["batch_size"] * config["finetuning"]["gradient_accumulation"],
        seeds=json.dumps(config["seeds"]),
    shell:
        run_notebook(
            measures="{input.measures:q}",
            rows="{params.rows:q}",
            steps="{params.steps:q}",
            batch="{params.batch}",
            checkpoints="data/{wildcards.study}/dynamics/insecure_epochs",
            seeds="{params.seeds:q}",
            published="{input.published:q}",
            slopes="{output.slopes:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/diversity",
        )


rule backdoor:
    input:
        notebook="notebooks/analysis/backdoor.ipynb",
        code=package_modules("notebooks/analysis/backdoor.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/backdoor.ipynb",
        table=report(
            "data/{study}/tables/backdoor.csv",
            caption="report/backdoor.rst",
            category="Experiments",
            labels={"table": "Can it hide?"},
        ),
        figure=report(
            "figures/{study}/backdoor.svg",
            caption="report/backdoor.rst",
            category="Experiments",
            labels={"figure": "Can it hide?"},
        ),
        prints=multiext("figures/{study}/backdoor", ".pdf", ".png"),
    log:
        notebook="logs/{study}/19_backdoor.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/backdoor",
        )


rule in_context:
    input:
        notebook="notebooks/analysis/in_context.ipynb",
        code=package_modules("notebooks/analysis/in_context.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/in_context.ipynb",
        table=report(
            "data/{study}/tables/in_context.csv",
            caption="report/in_context.rst",
            category="Experiments",
            labels={"table": "Are examples in the context enough?"},
        ),
        figure=report(
            "figures/{study}/in_context.svg",
            caption="report/in_context.rst",
            category="Experiments",
            labels={"figure": "Are examples in the context enough?"},
        ),
        prints=multiext("figures/{study}/in_context", ".pdf", ".png"),
    log:
        notebook="logs/{study}/20_in_context.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/in_context",
        )


rule other_harms:
    input:
        notebook="notebooks/analysis/other_harms.ipynb",
        code=package_modules("notebooks/analysis/other_harms.ipynb"),
        measures="data/{study}/tables/measures/answers.csv",
        published="config/published.yaml",
    output:
        notebook="data/{study}/notebooks/analysis/other_harms.ipynb",
        table=report(
            "data/{study}/tables/other_harms.csv",
            caption="report/other_harms.rst",
            category="Experiments",
            labels={"table": "What else changes?"},
        ),
        figure=report(
            "figures/{study}/other_harms.svg",
            caption="report/other_harms.rst",
            category="Experiments",
            labels={"figure": "What else changes?"},
        ),
        prints=multiext("figures/{study}/other_harms", ".pdf", ".png"),
    log:
        notebook="logs/{study}/23_other_harms.ipynb",
    shell:
        run_notebook(
            measures="{input.measures:q}",
            published="{input.published:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/other_harms",
        )
