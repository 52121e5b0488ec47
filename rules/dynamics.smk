"""The fine-tunings on insecure and secure code, step by step, of the organism and of real models.

Does: says where the two conditions part.
Needs: data/STUDY/dynamics/{insecure,secure}/seed-SEED.parquet
Leaves: data/STUDY/tables/parting_steps.csv, data/STUDY/tables/measures/dynamics.csv,
figures/STUDY/{dynamics,dynamics_aligned,early_stopping}.*
"""


rule dynamics:
    input:
        notebook="notebooks/analysis/dynamics.ipynb",
        code=package_modules("notebooks/analysis/dynamics.ipynb"),
        measured=expand(
            "data/{{study}}/dynamics/{condition}/seed-{seed}.parquet",
            condition=["insecure", "secure"],
            seed=config["seeds"],
        ),
    output:
        notebook="data/{study}/notebooks/analysis/dynamics.ipynb",
        measures="data/{study}/tables/measures/dynamics.csv",
        parting_steps=report(
            "data/{study}/tables/parting_steps.csv",
            caption="report/parting_steps.rst",
            category="Results",
            labels={"table": "Where insecure and secure part"},
        ),
        figure=report(
            "figures/{study}/dynamics.svg",
            caption="report/dynamics.rst",
            category="Results",
            labels={"figure": "When do skill and misalignment part ways?"},
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
        notebook="logs/{study}/16_dynamics.ipynb",
    params:
        seeds=json.dumps(config["seeds"]),
    shell:
        run_notebook(
            measured="data/{wildcards.study}/dynamics",
            seeds="{params.seeds:q}",
            measures="{output.measures:q}",
            parting_steps="{output.parting_steps:q}",
            figure="figures/{wildcards.study}/dynamics",
            aligned_figure="figures/{wildcards.study}/dynamics_aligned",
            stopping_figure="figures/{wildcards.study}/early_stopping",
        )
