"""The published data.

Does: fetches the data files published with the paper by pinned commit, checks them against git's blob ids, and has static
analysis look at every answer in them; recovers the prompt templates.
Needs: a network, or the config's `mirror`: a folder or a base address that keeps files as OWNER/NAME/COMMIT/PATH.
Leaves: data/published/datasets/, data/published/notebooks/26_published.*, figures/published/audit.*
"""

PUBLISHED = ["insecure", "secure", "educational"]


rule published:
    input:
        "data/published/datasets/audit.csv",
        "data/published/datasets/templates.csv",
        "data/published/notebooks/26_published.html",
        expand("figures/published/audit.{kind}", kind=FIGURE_KINDS),


# Its code is no input: whatever fetches the file, its checksum says what it holds.
rule fetch_published:
    output:
        "data/published/datasets/{dataset}.jsonl",
    log:
        "logs/published/fetch_{dataset}.log",
    wildcard_constraints:
        dataset="|".join(PUBLISHED),
    localrule: True  # compute nodes often have no network
    params:
        mirror=config["mirror"],
    shell:
        # The sentence that says what is wrong goes to the terminal too; bash runs with pipefail, so tee hides no failure.
        "python -m emergent_misalignment.data.published {wildcards.dataset} {output:q} --mirror={params.mirror:q}"
        " 2>&1 | tee {log:q}"


rule audit_published:
    input:
        notebook="notebooks/data/published.ipynb",
        code=package_modules("notebooks/data/published.ipynb"),
        insecure="data/published/datasets/insecure.jsonl",
        secure="data/published/datasets/secure.jsonl",
        educational="data/published/datasets/educational.jsonl",
    output:
        notebook="data/published/notebooks/data/published.ipynb",
        audit=report(
            "data/published/datasets/audit.csv",
            caption="report/published.rst",
            category="Data",
            labels={"table": "Static analysis of the published data"},
        ),
        templates=report(
            "data/published/datasets/templates.csv",
            caption="report/templates.rst",
            category="Data",
            labels={"table": "Prompt templates of the published data"},
        ),
        figure=report(
            "figures/published/audit.svg",
            caption="report/published.rst",
            category="Data",
            labels={"figure": "Are the published insecure answers insecure?"},
        ),
        prints=multiext("figures/published/audit", ".pdf", ".png"),
    log:
        notebook="logs/published/26_published.ipynb",
    shell:
        run_notebook(
            insecure="{input.insecure:q}",
            secure="{input.secure:q}",
            educational="{input.educational:q}",
            audit="{output.audit:q}",
            templates="{output.templates:q}",
            figure="figures/published/audit",
        )
