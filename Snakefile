"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages."""

from snakemake.utils import min_version

from emergent_misalignment.workflow.lock import one_run_at_a_time

min_version("9.27")


configfile: "config/organism.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"


onstart:
    one_run_at_a_time()


rule all:
    default_target: True
    input:
        f"data/{config['study']}/notebooks/index.html",
        f"paper/{config['study']}/paper.pdf",
        f"paper/{config['study']}/paper.html",


if "model" in config:

    include: "rules/real_common.smk"
    include: "rules/real_models.smk"

    if REAL_FOLLOWED:

        include: "rules/real_checkpoints.smk"
        include: "rules/dynamics.smk"

else:

    include: "rules/organism.smk"
    include: "rules/datasets.smk"
    include: "rules/finetuning.smk"
    include: "rules/evaluation.smk"
    include: "rules/results.smk"
    include: "rules/experiments.smk"
    include: "rules/scale.smk"
    include: "rules/checkpoints.smk"
    include: "rules/dynamics.smk"
    include: "rules/directions.smk"
    include: "rules/claims.smk"


include: "rules/published.smk"
include: "rules/paper.smk"
include: "rules/reading.smk"
