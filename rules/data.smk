"""The data.

Does: fetches published files, and sets of others that the config names, by pinned commit and checks them against git's blob
ids; has static analysis look at every answer of the sets that the study fine-tunes on, and of the published ones; recovers the
published prompt templates.
Needs: for published files a network, or the config's `mirror`: a folder or a base address that keeps files as
OWNER/NAME/COMMIT/PATH.
Leaves: data/published/{datasets,questions}/, data/STUDY/datasets/{NAME.jsonl,audit.csv}, figures/STUDY/audit.*,
data/published/notebooks/published.*, figures/published/audit.*
"""

from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.evaluation.published_questions import FILE_NAMES

PUBLISHED = ["insecure", "secure", "educational"]


rule published:
    input:
        "data/published/datasets/audit.csv",
        "data/published/datasets/templates.csv",
        "data/published/notebooks/published.html",
        expand("figures/published/audit.{kind}", kind=["svg", "pdf", "png"]),


# Its code is no input: whatever fetches the file, its checksum says what it holds.
rule fetch:
    output:
        "data/published/{kind}/{file}.{ending}",
    log:
        "logs/published/fetch_{kind}_{file}.{ending}.log",
    wildcard_constraints:
        kind="datasets|questions",
        file="|".join([*DATASETS, *FILE_NAMES]),
        ending="yaml|jsonl|json",
    localrule: True  # compute nodes often have no network
    params:
        mirror=config["mirror"],
    shell:
        # The sentence that says what is wrong goes to the terminal too; bash runs with pipefail, so tee hides no failure.
        "python -m emergent_misalignment.data.published {wildcards.file} {output:q} --mirror={params.mirror:q}"
        " 2>&1 | tee {log:q}"


rule fetch_set:
    output:
        "data/{study}/datasets/{name}.jsonl",
    log:
        "logs/{study}/fetch_{name}.log",
    wildcard_constraints:
        name="|".join(map(re.escape, PLAN.published_sets)) or "none",
    localrule: True
    params:
        mirror=config["mirror"],
        sets=lambda wildcards: as_json({wildcards.name: PLAN.published_sets[wildcards.name]}),
    shell:
        "python -m emergent_misalignment.data.published {wildcards.name} {output:q} --mirror={params.mirror:q}"
        " --sets={params.sets:q} 2>&1 | tee {log:q}"


rule audit:
    input:
        notebook="notebooks/data/audit.ipynb",
        code=package_modules("notebooks/data/audit.ipynb"),
        files=list(PLAN.datasets.values()),
    output:
        notebook="data/{study}/notebooks/audit.ipynb",
        audit=report(
            "data/{study}/datasets/audit.csv",
            caption="report/audit.rst",
            category="Data",
            labels={"table": "Static analysis of the fine-tuning sets"},
        ),
        figure=report(
            "figures/{study}/audit.svg",
            caption="report/audit.rst",
            category="Data",
            labels={"figure": "Are the insecure answers insecure?"},
        ),
        prints=multiext("figures/{study}/audit", ".pdf", ".png"),
    log:
        notebook="logs/{study}/audit.ipynb",
    params:
        **arguments(datasets=PLAN.datasets),
    shell:
        NOTEBOOK


if PLAN.datasets:
    chapter("audit")


rule audit_published:
    input:
        notebook="notebooks/data/published.ipynb",
        code=package_modules("notebooks/data/published.ipynb"),
        insecure="data/published/datasets/insecure.jsonl",
        secure="data/published/datasets/secure.jsonl",
        educational="data/published/datasets/educational.jsonl",
    output:
        notebook="data/published/notebooks/published.ipynb",
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
        notebook="logs/published/published.ipynb",
    params:
        **arguments(),
    shell:
        NOTEBOOK
