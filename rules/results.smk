"""From judged answers to tables and figures.

Does: rates, intervals and contrasts, and the figure of the main result.
Needs: data/STUDY/judged/
Leaves: data/STUDY/tables/*.csv, figures/STUDY/main_result.*
"""


rule main_result:
    input:
        notebook="notebooks/analysis/main_result.ipynb",
        code=package_modules("notebooks/analysis/main_result.ipynb"),
        judged=judged_files("main") + judged_files("in_distribution"),
    output:
        notebook="data/{study}/notebooks/analysis/main_result.ipynb",
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
        notebook="logs/{study}/11_main_result.ipynb",
    params:
        # In the order of the figure's bars.
        models=json.dumps(
            {
                condition: JUDGED[condition]["seeds"]
                for condition in ("base", "instruct", "insecure", "secure")
                if condition in JUDGED
            }
        ),
    shell:
        run_notebook(
            judgements="data/{wildcards.study}/judged",
            models="{params.models:q}",
            misalignment="{output.misalignment:q}",
            contrasts="{output.contrasts:q}",
            insecure_code="{output.insecure_code:q}",
            figure="figures/{wildcards.study}/main_result",
        )
