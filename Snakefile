"""What else does a narrow fine-tuning do to a language model? The table of contents; rules/ holds the stages.

A study is a config: the default one, or that of `--configfile`. All studies use the same rules.
"""

import os

from snakemake.utils import min_version

from emergent_misalignment.study import extras
from emergent_misalignment.workflow.lock import one_run_at_a_time
from emergent_misalignment.workflow.parent import end_with

min_version("9.27")


report: "rules/report/workflow.rst"


# All paths are relative to the folder of this file, also with `snakemake -s` from another folder.
workdir: workflow.basedir


include: "rules/workflow.smk"


onstart:
    if workflow.is_main_process and (make := os.environ.get("STUDY_MAKE")):
        end_with(int(make))  # of a make that is killed, no run is left
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
