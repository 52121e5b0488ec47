"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages."""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/organism.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"


rule all:
    default_target: True
    input:
        f"data/{config['study']}/notebooks/index.html",


include: "rules/organism.smk"
include: "rules/datasets.smk"
include: "rules/finetuning.smk"
include: "rules/evaluation.smk"
include: "rules/results.smk"
include: "rules/published.smk"
include: "rules/reading.smk"
