"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages."""

from snakemake.utils import min_version

from emergent_misalignment.lock import one_run_at_a_time

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


if "model" in config:

    include: "rules/real_common.smk"
    include: "rules/real_models.smk"

else:

    include: "rules/organism.smk"
    include: "rules/datasets.smk"
    include: "rules/finetuning.smk"
    include: "rules/evaluation.smk"
    include: "rules/results.smk"


include: "rules/published.smk"
include: "rules/reading.smk"
