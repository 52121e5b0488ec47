"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages.

A study is a config: the default one, or that of `--configfile`. All studies take the same way through the same rules.
"""

from snakemake.utils import min_version

from emergent_misalignment.models import serving
from emergent_misalignment.study import extras
from emergent_misalignment.workflow.lock import one_run_at_a_time

min_version("9.27")


report: "rules/report/workflow.rst"


include: "rules/workflow.smk"


onstart:
    one_run_at_a_time()
    ahead = {job.rule.name for job in workflow.dag.needrun_jobs()}
    extras.check(config, ahead)
    if ahead & extras.by_vllm(config):
        serving.where()  # an error, before anything is computed, if vLLM is nowhere


rule all:
    default_target: True
    input:
        f"data/{config['study']}/notebooks/index.html",
        # The paper is about what fine-tuning does.
        [f"paper/{config['study']}/paper.{kind}" for kind in ("pdf", "html") if PLAN.tuned],
        [f"data/{config['study']}/report.{kind}" for kind in ("html", "json") if PLAN.report],


if PLAN.is_organism:

    include: "rules/world.smk"


include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/evaluation.smk"
include: "rules/analysis.smk"
include: "rules/report.smk"
