"""The ladder of base models.

Does: trains base models of other sizes and with less reading, does to each what the main study does on insecure and secure
code, and sets them side by side with the main study's model.
Needs: the config; for the comparison data/STUDY/tables/measures/answers.csv
Leaves: data/STUDY/ladder/BASE/, data/STUDY/tables/measures/scale.csv, data/STUDY/tables/scale.csv, figures/STUDY/scale.*
"""


rule ladder:
    input:
        notebook="notebooks/21_ladder.ipynb",
        code=package_modules("notebooks/21_ladder.ipynb"),
    output:
        notebook="data/{study}/notebooks/21_ladder_{base}.ipynb",
        gaps="data/{study}/ladder/{base}/gaps.csv",
        measured="data/{study}/ladder/{base}/measures.csv",
    log:
        notebook="logs/{study}/21_ladder_{base}.ipynb",
    benchmark:
        "benchmarks/{study}/21_ladder_{base}.tsv"
    wildcard_constraints:
        base="|".join(config["ladder"]) or "none",
    params:
        shape=lambda wildcards: as_json(config["organism"] | config["ladder"][wildcards.base]),
        pretraining=as_json(config["pretraining"]),
        instruct=as_json(config["instruct"]),
        finetuning=as_json(config["finetuning"]),
        data=as_json({name: config["datasets"][name] for name in ("rows", "seed")}),
        asking=as_json({name: config["evaluation"][name] for name in ("samples", "max_new_tokens")}),
        seeds=json.dumps(config["seeds"][:3]),  # enough for a slope, at three fifths of the time
    shell:
        run_notebook(
            base="{wildcards.base}",
            shape="{params.shape:q}",
            pretraining="{params.pretraining:q}",
            instruct="{params.instruct:q}",
            finetuning="{params.finetuning:q}",
            data="{params.data:q}",
            asking="{params.asking:q}",
            seeds="{params.seeds:q}",
            models="data/{wildcards.study}/ladder/{wildcards.base}/models",
            gaps="{output.gaps:q}",
            measured="{output.measured:q}",
        )


rule scale:
    input:
        notebook="notebooks/analysis/scale.ipynb",
        code=package_modules("notebooks/analysis/scale.ipynb"),
        gaps="data/{study}/models/base/gaps.csv",
        measures="data/{study}/tables/measures/answers.csv",
        rungs=expand("data/{{study}}/ladder/{base}/{file}.csv", base=config["ladder"], file=["gaps", "measures"]),
    output:
        notebook="data/{study}/notebooks/analysis/scale.ipynb",
        measures="data/{study}/tables/measures/scale.csv",
        table=report(
            "data/{study}/tables/scale.csv",
            caption="report/scale.rst",
            category="Results",
            labels={"table": "Base models of other sizes, and with less reading"},
        ),
        figure=report(
            "figures/{study}/scale.svg",
            caption="report/scale.rst",
            category="Results",
            labels={"figure": "How does the effect depend on the base model?"},
        ),
        prints=multiext("figures/{study}/scale", ".pdf", ".png"),
    log:
        notebook="logs/{study}/22_scale.ipynb",
    params:
        shape=as_json(config["organism"]),
        ladder=as_json(config["ladder"]),
    shell:
        run_notebook(
            shape="{params.shape:q}",
            ladder="{params.ladder:q}",
            study="data/{wildcards.study}",
            measures="{output.measures:q}",
            table="{output.table:q}",
            figure="figures/{wildcards.study}/scale",
        )
