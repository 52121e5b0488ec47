"""What the rooms share.

Does: resolves the config and checks it, makes the plan of the study, and has the functions with which rules call notebooks
and register them in the order of reading.
Needs: the config. Leaves: nothing.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import is_flagged

from emergent_misalignment.study.costs import Shape, training_hours
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.requirements import Needs, check_own
from emergent_misalignment.own_data.models import check_existing
from emergent_misalignment.study.checks import check_files
from emergent_misalignment.study.config import given, resolve
from emergent_misalignment.workflow.notebook import declared_parameters
from emergent_misalignment.study.plan import Plan
from emergent_misalignment.study.schema import check
from emergent_misalignment.own_data.sets import check_sets
from emergent_misalignment.workflow.sources import module_and_imports, package_modules

# The files and arguments are read again, because Snakemake takes keys that stand twice and numbers of `--config` as texts.
try:
    resolved = resolve(given(workflow.overwrite_configfiles, workflow.config_settings.config_args))
    check(resolved)
    PLAN = Plan(resolved)
    check_files(PLAN)
    if workflow.is_main_process:  # not again in each job that a cluster starts
        check_sets(PLAN)
        if not (PLAN.is_organism or PLAN.by_api):
            check_own(Needs(**PLAN.model_needs))
            for each in PLAN.given.values():
                base, place = resolved["model"]["name"], f"The condition {each.name}"
                check_existing(each.adapter, each.model, each.revision, base, place)
except BadInput as error:
    raise WorkflowError(str(error)) from None  # which Snakemake shows without the way there
config.clear()
config.update(resolved)
GPU = 0 if PLAN.is_organism or PLAN.by_api else int(config["model"].get("gpu", True))
BY_API = PLAN.by_api  # what asks an API runs where snakemake runs, because compute nodes often have no network

# Every command finds the python that runs Snakemake, whether or not its environment is activated. A prefix takes the place
# of Snakemake's own, so that it has to ask for bash's strict mode itself. Notebooks that run side by side leave their
# progress in their logs, since they would overwrite each other's bars in a terminal. They end when this process ends.
shell.prefix(
    f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH NOTEBOOK_PROGRESS=log"
    f" NOTEBOOK_STARTER={os.getpid()}; "
)

# Nothing is fine-tuned before an organism has passed the gate, or a real model has been checked. What the gate says of each
# of them changes no training, so that neither another threshold nor a new organism trains anything again.
DOOR = [] if PLAN.is_organism or BY_API else [ancient(f"{PLAN.folder}/models/{PLAN.start}.json")]
GATE = [ancient(f"{PLAN.folder}/organisms/gates.csv")] if PLAN.is_organism else DOOR


wildcard_constraints:
    study=re.escape(config["study"]),
    organism="|".join(map(re.escape, PLAN.organisms)) or "none",
    seed=r"\d+",


# --- notebooks --------------------------------------------------------------------------------------------------------

# The command of every rule whose work is done by a notebook.
NOTEBOOK = "python -m emergent_misalignment.workflow.notebook {input.notebook} {log.notebook} {output.notebook} {params.arguments}"


def as_json(section):
    """A section of the config as a text. Keys are sorted, because their order in a file means nothing."""
    return json.dumps(section, sort_keys=True)


def arguments(**own):
    """The value of each parameter that a rule's notebook declares, as `params` of the rule for NOTEBOOK.

    A parameter that is named like an input or an output of the rule is its path; the values of the others are given
    here, or functions of the wildcards that give them. Texts may hold wildcards. `settings` repeats what is given here,
    because Snakemake does not look for changes in params that are made from inputs and outputs.
    """

    def settings(wildcards):
        given = {name: value(wildcards) if callable(value) else value for name, value in own.items()}
        return {
            name: value.format(**wildcards) if isinstance(value, str) else as_json(value)
            for name, value in given.items()
        }

    def everything(wildcards, input, output):
        values = settings(wildcards)
        for name, default in declared_parameters(input.notebook).items():
            files = output if name in output.keys() else input
            if name in values:
                continue
            if name not in files.keys():
                raise BadInput(
                    f"No rule gives {input.notebook} a value for its parameter {name}; add it to `arguments`."
                )
            paths = getattr(files, name)
            listed = [paths] if isinstance(paths, str) else list(paths)
            values[name] = as_json(listed) if isinstance(default, list) else str(paths)
        return " ".join(shlex.quote(f"{name}={value}") for name, value in values.items())

    return {"settings": lambda wildcards: as_json(settings(wildcards)), "arguments": everything}


# --- jobs --------------------------------------------------------------------------------------------------------------


def host_memory_mb(wildcards):
    """Memory of the host, in which weights are loaded before they go to the GPU."""
    shape = config.get("model", {}).get("shape")
    return 8000 + (int(Shape(**shape).parameters() * 2 * 1.3 / 1e6) if shape and GPU else 0)


def tuning_minutes(wildcards):
    """Three times the estimate, and half an hour for loading."""
    shape = config.get("model", {}).get("shape")
    return 30 + int(180 * training_hours(Shape(**shape), config["finetuning"], 250)) if shape and GPU else 60


def conditions_of(wildcards):
    """The conditions of a batch of fine-tunings."""
    return list(PLAN.tuning_conditions(wildcards.batch))


# --- the order of reading ---------------------------------------------------------------------------------------------

CHAPTERS = []


def chapter(rule, also=(), room="", **runs):
    """Register a rule's notebook as the next to be read, with its results: the outputs of the rule that are marked `report`.

    A rule with wildcards is given a list of values for each in `runs`; what stands in the same place of the lists makes a
    run of the same notebook. `also` has results that the paper reads and Snakemake's report does not show. `room` is under
    whose heading the chapter is read, if that is not the notebook's own.
    """
    each = workflow.get_rule(rule)
    wildcards = [{"study": PLAN.study} | dict(zip(runs, values)) for values in zip(*runs.values(), strict=True)]
    wildcards = wildcards or [{"study": PLAN.study}]
    (source,) = _expanded(each.input.notebook, wildcards)
    reported = [path for path in each.output if is_flagged(path, "report")]
    CHAPTERS.append(
        {
            "room": room or Path(source).parent.name,
            "name": Path(source).stem,
            "source": source,
            "notebooks": [_run(each.output.notebook, source, values) for values in wildcards],
            "results": [
                *(path for pattern in reported for path in _expanded(pattern, wildcards)),
                *(path.format(study=PLAN.study) for path in also),
            ],
        }
    )


def _run(pattern, source, wildcards):
    """One executed copy of a notebook, as report/contents.py has it: its path, which run it is, and the run's seed."""
    (path,) = _expanded(pattern, [wildcards])
    run, seed = Path(path).stem.removeprefix(Path(source).stem), wildcards.get("seed")
    return {"path": path, "run": run.removesuffix(f"_{seed}").strip("_"), "seed": seed}


def _expanded(path, wildcards):
    """The paths of a pattern for all values of the wildcards; without the constraints that Snakemake writes into it."""
    plain = re.sub(r"\{(\w+),[^}]*\}", r"{\1}", str(path))
    return list(dict.fromkeys(plain.format(**values) for values in wildcards))
