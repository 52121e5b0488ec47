"""The data.

Does: fetches published files, and sets of others that the config names, by pinned commit and checks them against git's blob
ids; runs static analysis on every answer of the sets that the study fine-tunes on, and of the published ones; recovers the
published prompt templates.
Needs: for published files a network, or the config's `mirror`: a folder or a base address that keeps files as
OWNER/NAME/COMMIT/PATH.
Leaves: data/published/{datasets,questions}/, data/STUDY/datasets/{NAME.jsonl,audit.csv}, figures/STUDY/audit.*,
data/published/notebooks/published.*, figures/published/audit.*
"""

from emergent_misalignment.data.published import DATASETS, QUESTION_FILES

NAMED_SETS = {} if STUDY.is_organism else STUDY.published_sets


rule published:
    input:
        "data/published/datasets/audit.csv",
        "data/published/datasets/templates.csv",
        "data/published/notebooks/published.html",
        expand("figures/published/audit.{kind}", kind=["svg", "pdf", "png"]),


# Its code is no input: the checksum says what a file holds.
rule fetch:
    output:
        "data/published/{kind}/{file}.{ending}",
    log:
        "logs/published/fetch_{kind}_{file}.{ending}.log",
    wildcard_constraints:
        kind="datasets|questions",
        file=one_of([*DATASETS, *QUESTION_FILES]),
        ending="yaml|jsonl|json",
    localrule: True  # compute nodes often have no network
    params:
        mirror=STUDY.mirror,
    script:
        "scripts/fetch_file.py"


rule fetch_set:
    output:
        "data/{study}/datasets/{name}.jsonl",
    log:
        "logs/{study}/fetch_{name}.log",
    wildcard_constraints:
        name=one_of(NAMED_SETS),
    localrule: True
    params:
        mirror=STUDY.mirror,
        file=lambda wildcards: NAMED_SETS[wildcards.name].model_dump(),
    script:
        "scripts/fetch_set.py"


rule audit:
    input:
        notebook="notebooks/data/audit.ipynb",
        code=package_modules("notebooks/data/audit.ipynb"),
        files=list(PATHS.datasets.values()),
    output:
        notebook="data/{study}/notebooks/audit.ipynb",
        audit=shown("data/{study}/datasets/audit.csv", "Static analysis of the fine-tuning sets", "Data"),
        figure=shown("figures/{study}/audit.svg", "Are the insecure answers insecure?", "Data"),
        prints=prints("audit"),
    log:
        notebook="logs/{study}/audit.ipynb",
    group:
        grouped("texts")
    resources:
        **SMALL,
    params:
        datasets=in_order(PATHS.datasets),
    script:
        "scripts/run_notebook.py"


rule audit_published:
    input:
        notebook="notebooks/data/published.ipynb",
        code=package_modules("notebooks/data/published.ipynb"),
        insecure="data/published/datasets/insecure.jsonl",
        secure="data/published/datasets/secure.jsonl",
        educational="data/published/datasets/educational.jsonl",
    output:
        notebook="data/published/notebooks/published.ipynb",
        audit=shown("data/published/datasets/audit.csv", "Static analysis of the published data", "Data", "published"),
        templates=shown("data/published/datasets/templates.csv", "Prompt templates of the published data", "Data"),
        figure=shown("figures/published/audit.svg", "Are the published insecure answers insecure?", "Data", "published"),
        prints=multiext("figures/published/audit", ".pdf", ".png"),
    log:
        notebook="logs/published/published.ipynb",
    script:
        "scripts/run_notebook.py"
