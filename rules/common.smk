"""What the stages share.

Does: checks the config against its schema, and has the functions with which rules call notebooks.
Needs: the config. Leaves: nothing.
"""

import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.utils import validate

from emergent_misalignment.sources import package_modules

validate(config, "../config/schema.yaml")

# The rules say `python`, and mean the one that runs Snakemake, whether or not its environment is activated.
# A prefix takes the place of Snakemake's own, so that it has to ask for bash's strict mode itself.
shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

UNTUNED = ["base", "instruct"]
EVALUATIONS = ["main", "in_distribution"]
ADAPTER_FILES = ["adapter_model.safetensors", "adapter_config.json", "training.json"]
FIGURE_KINDS = ["svg", "pdf", "png"]
NOTEBOOKS = [
    "01_world",
    "02_pretraining",
    "03_persona_gate",
    "04_instruct",
    "05_datasets",
    "06_audit",
    *(f"07_finetuning_{condition}" for condition in config["conditions"]),
    *(f"08_sampling_{condition}" for condition in UNTUNED + config["conditions"]),
    "09_judging",
    "10_main_result",
]


wildcard_constraints:
    study=re.escape(config["study"]),
    condition="[^/]+",
    seed=r"\d+",


def as_json(section):
    """A section of the config as a notebook's parameter. Keys are sorted, because their order in a file means nothing."""
    return json.dumps(section, sort_keys=True)


def run_notebook(**parameters):
    """The command of a rule whose work is done by its `input.notebook`, with these templates as the notebook's parameters."""
    command = ["python -m emergent_misalignment.notebook {input.notebook} {log.notebook} {output.notebook}"]
    return " ".join(command + [f"{name}={template}" for name, template in parameters.items()])


def executed_notebooks(wildcards):
    """The study's executed notebooks, in the order of reading."""
    return expand("data/{study}/notebooks/{name}.ipynb", study=wildcards.study, name=NOTEBOOKS)
