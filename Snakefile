"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages.

A study is a config: the default one, or that of `--configfile`. All studies use the same rules.
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
    extras.check(STUDY, ahead)
    if ahead & extras.by_vllm(STUDY):
        serving.where()  # an error, before anything is computed, if vLLM is not installed


rule all:
    default_target: True
    input:
        PATHS.of("notebooks/index.html"),
        # The paper is about the effects of fine-tuning.
        [f"paper/{STUDY.study}/paper.{kind}" for kind in ("pdf", "html") if STUDY.tuned],
        [PATHS.of(f"report.{kind}") for kind in ("html", "json") if STUDY.reported],


if STUDY.is_organism:

    include: "rules/world.smk"


include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/evaluation.smk"
include: "rules/analysis.smk"
include: "rules/report.smk"
