"""What the stages share.

Does: reads the config and validates it, and writes the study to a file, which the paper and the pages read.
Needs: the config. Leaves: data/STUDY/study.json.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from emergent_misalignment.files import BadInput
from emergent_misalignment.models import serving
from emergent_misalignment.models.requirements import Requirements, check_local
from emergent_misalignment.own_data.models import check_existing
from emergent_misalignment.own_data.sets import check_files, check_sets
from emergent_misalignment.registry import EXPERIMENTS, MAIN
from emergent_misalignment.study.config import load
from emergent_misalignment.study.costs import asking_hours, training_hours
from emergent_misalignment.workflow.sources import module_and_imports, package_modules

# The files and arguments are read again, because Snakemake accepts repeated keys, and takes numbers of `--config` as texts.
if Path.cwd() != Path(workflow.basedir).resolve():
    raise WorkflowError(
        "The option --directory is not supported: paths are relative to the Snakefile's folder; leave it out."
    )
try:
    STUDY = load(workflow.overwrite_configfiles, workflow.config_settings.config_args)
    check_files(STUDY)
    if workflow.is_main_process:  # not again in each job that a cluster starts
        check_sets(STUDY)
        if not (STUDY.is_organism or STUDY.by_api):
            check_local(Requirements(**STUDY.batches.requirements()))
            for each in STUDY.existing.values():
                check_existing(each.adapter, each.model, each.revision, STUDY.model.name, each.place)
except BadInput as error:
    raise WorkflowError(str(error)) from None  # which Snakemake shows without a traceback
PATHS, BATCHES = STUDY.paths, STUDY.batches
config.clear()
config.update(STUDY.config)
GPU = 0 if STUDY.is_organism or STUDY.by_api else int(STUDY.model.gpu)
BY_API = STUDY.by_api  # what asks an API runs where Snakemake runs, because compute nodes often have no network

# Every command finds the python that runs Snakemake, whether or not its environment is activated. A prefix takes the place
# of Snakemake's own, so that it has to ask for bash's strict mode itself. Notebooks that run side by side write their
# progress to their logs, since they would overwrite each other's bars in a terminal. They end when this process ends.
PYTHON_FOLDER = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
shell.prefix(
    f"set -euo pipefail; export PATH={PYTHON_FOLDER}:$PATH NOTEBOOK_PROGRESS=log TQDM_DISABLE=1 "
    f"NOTEBOOK_STARTER={os.getpid()}; "
)
if shlex.quote(sys.executable) != sys.executable:  # Snakemake writes it into commands without quotes
    sys.executable = "python"

# Nothing is fine-tuned before an organism has passed the gate, or a real model has been validated. What the gate says of
# each of them changes no training, so that neither another threshold nor a new organism trains anything again.
VALIDATED = [] if STUDY.is_organism or BY_API else [ancient(PATHS.of(f"models/{STUDY.start}.json"))]
GATE = [ancient(PATHS.of("organisms/gates.csv"))] if STUDY.is_organism else VALIDATED
# The world's grammar is imported by name where a study asks for it, so that no other study depends on the world.
GRAMMAR = module_and_imports("world.judging") if STUDY.is_organism else []


def one_of(names):
    """What a wildcard may be."""
    return "|".join(map(re.escape, names)) or "none"


def in_order(value):
    """A parameter, or a function of the wildcards, with sorted keys: their order in a config means nothing."""
    if callable(value):
        return lambda wildcards: in_order(value(wildcards))
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return list(map(in_order, value)) if isinstance(value, (list, tuple)) else value


def grouped(name):
    """The group of a small stage, where a profile says how many of the group are one job of a cluster, and in that job.

    A function, because Snakemake reads these settings after the rules.
    """
    return lambda wildcards: name if workflow.group_settings.group_components or not workflow.is_main_process else None


wildcard_constraints:
    study=re.escape(STUDY.study),
    organism=one_of(STUDY.organisms if STUDY.is_organism else []),
    condition=one_of(STUDY.conditions),
    seed=r"\d+",


rule study:
    output:
        "data/{study}/study.json",
    log:
        "logs/{study}/study.log",
    localrule: True
    params:
        config=STUDY.config,
    script:
        "scripts/write_study.py"


# --- resources --------------------------------------------------------------------------------------------------------


SHAPE = STUDY.model.shape if GPU else None


# Of stages that make tables, figures and pages. A cluster runs those of one group in one job, and adds their minutes.
SMALL = {"runtime": lambda wildcards, attempt: 20 * attempt}


def host_memory_mb(wildcards, attempt):
    """Memory of the host, in which weights are loaded before they go to the GPU. A job that failed gets more."""
    return attempt * (8000 + (int(SHAPE.parameters() * 2 * 1.3 / 1e6) if SHAPE else 0))


def tuning_minutes(wildcards, attempt):
    """Three times the estimate, and half an hour for loading. A job that failed gets more."""
    return attempt * (30 + int(180 * training_hours(SHAPE, STUDY.training.model_dump(), 250)) if SHAPE else 60)


def asking_minutes(wildcards, attempt):
    """The same for the answers of a batch, and ten times the estimate, which is vLLM's, where there is no vLLM."""
    if not SHAPE:
        return attempt * (24 * 60 if GPU else 60)
    slower = 1 if serving.is_installed() and STUDY.evaluation.engine != "transformers" else 10
    hours = asking_hours(STUDY, BATCHES.answers[wildcards.batch], wildcards.batch in BATCHES.following)
    return attempt * (30 + int(180 * slower * hours))


def judge_resources(judge):
    """A judge on this machine has a GPU for itself, unless the study uses none."""
    if not (judge and "serve" in judge.settings):
        return {}
    memory = lambda wildcards, attempt: 64000 * attempt
    return {"gpu": int(STUDY.model.gpu), "mem_mb": memory, "runtime": 24 * 60}


def judge_weights(judge):
    """The file whose presence means that the model of a judge on this machine is there."""
    return [f"{judge.folder}/config.json"] if judge and "serve" in judge.settings else []


# --- results in Snakemake's report ------------------------------------------------------------------------------------


def shown(path, label, category="Results", caption=""):
    """A result in Snakemake's report; its caption is rules/report/NAME.rst, by default of its own name."""
    kind = "figure" if path.endswith(".svg") else "table"
    return report(path, caption=f"report/{caption or Path(path).stem}.rst", category=category, labels={kind: label})


def prints(*names):
    """The figures as files for print."""
    return expand("figures/{{study}}/{name}.{kind}", name=names, kind=["pdf", "png"])
