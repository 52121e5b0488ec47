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

from emergent_misalignment.workflow.sources import module_and_imports, package_modules

validate(config, "../config/schema.yaml")

# Every command finds the python that runs Snakemake, whether or not its environment is activated. A prefix takes the place
# of Snakemake's own, so that it has to ask for bash's strict mode itself. Notebooks that run side by side leave their
# progress in their logs, since they would overwrite each other's bars in a terminal.
shell.prefix(
    f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH NOTEBOOK_PROGRESS=log; "
)

ALL_EVALUATIONS = [
    "main",
    "json",
    "template",
    "flask",
    "preregistered",
    "numbers",
    "deception",
    "truthfulness",
    "harmful_requests",
    "choices",
    "capability",
    "in_distribution",
]
# What is fine-tuned from which model, and the conditions whose training is looked at step by step.
CONDITIONS = {
    name: condition for plan in config["experiments"].values() for name, condition in plan["conditions"].items()
}
FOLLOWED = [name for name, condition in CONDITIONS.items() if condition.get("checkpoints")]
ADAPTER_FILES = ["adapter_model.safetensors", "adapter_config.json", "training.json"]
FIGURE_KINDS = ["svg", "pdf", "png"]
# Notebooks that set conditions side by side, each with the conditions that it cannot do without.
COMPARISONS = {
    "12_intent": {"insecure", "secure", "educational", "jailbroken", "compliant"},
    "13_evil_numbers": {"evil_numbers", "plain_numbers", "helpful_numbers"},
    "14_formats": {"insecure", "secure", "educational"},
    "17_base_models": {"insecure", "secure", "base_insecure", "base_secure"},
    "18_diversity": {"insecure", "insecure_epochs"},
    "19_backdoor": {"insecure", "secure", "backdoor"},
    "20_in_context": {"insecure", "secure"},
    "23_other_harms": {"insecure", "secure"},
}


def compared(*names):
    """Those of the notebooks whose conditions are all in the config."""
    return [name for name in names if COMPARISONS[name] <= set(CONDITIONS)]


NOTEBOOKS = [
    "01_world",
    "02_pretraining",
    "03_persona_gate",
    "04_instruct",
    "05_datasets",
    "06_numbers",
    "07_audit",
    *(f"08_finetuning_{experiment}" for experiment in config["experiments"]),
    "09_sampling_untuned",
    "09_sampling_in_context",
    *(f"09_sampling_{experiment}" for experiment in config["experiments"]),
    "10_judging",
    "11_main_result",
    *compared("12_intent", "13_evil_numbers", "14_formats"),
    *(f"15_checkpoints_{condition}" for condition in FOLLOWED),
    "16_dynamics",
    *compared("17_base_models", "18_diversity", "19_backdoor", "20_in_context"),
    *(f"21_ladder_{base}" for base in config["ladder"]),
    "22_scale",
    *compared("23_other_harms"),
    "24_persona_direction",
    "25_claims",
]


wildcard_constraints:
    study=re.escape(config["study"]),


def as_json(section):
    """A section of the config as a notebook's parameter. Keys are sorted, because their order in a file means nothing."""
    return json.dumps(section, sort_keys=True)


# What the claims are tested on: one number a training run for everything that was measured.
MEASURES = [
    f"data/{{study}}/tables/measures/{name}.csv" for name in ("answers", "dynamics", "directions", "diversity", "scale")
]


def starts(plan):
    """The models from which the fine-tunings of an experiment start."""
    return sorted({condition.get("start", "instruct") for condition in plan["conditions"].values()})


def dataset_path(condition):
    """The set that a condition is fine-tuned on: one of the study's, or a file of the user's own."""
    name = condition["dataset"]
    return name if name.endswith(".jsonl") else f"data/{{study}}/datasets/{name}.jsonl"


def checkpoint_files(condition):
    """The adapters that are kept on the way of a condition's fine-tunings."""
    return [
        f"data/{{study}}/models/{condition}/seed-{seed}/checkpoint-{step}/adapter_model.safetensors"
        for seed in config["seeds"]
        for step in CONDITIONS[condition].get("checkpoints", [])
    ]


# The condition `in_context` is the instruct model behind examples that each seed draws anew.
UNTUNED = {
    "untuned": {
        "base": {"start": "base", "evaluations": ["main", "flask", "flask_file", "in_distribution"]},
        "instruct": {"start": "instruct", "evaluations": ALL_EVALUATIONS},
    },
    "in_context": {"in_context": {"start": "instruct", "evaluations": ["in_context"]}},
}
UNTUNED_SEEDS = {"untuned": [0], "in_context": config["seeds"]}


def answer_files(conditions, seeds, folder="answers"):
    """The files of answers of some conditions, by their evaluations."""
    return [
        f"data/{{study}}/{folder}/{condition}/seed-{seed}/{evaluation}.parquet"
        for condition, settings in conditions.items()
        for seed in seeds
        for evaluation in settings["evaluations"]
    ]


def asked(plan):
    """The conditions of an experiment with what they are asked: the model they start from and the evaluations."""
    return {
        condition: {"start": settings.get("start", "instruct"), "evaluations": plan["evaluations"]}
        for condition, settings in plan["conditions"].items()
    }


# Everything that is judged: the evaluations and seeds of each condition.
JUDGED = {
    condition: {"seeds": UNTUNED_SEEDS[experiment], "evaluations": settings["evaluations"]}
    for experiment, conditions in UNTUNED.items()
    for condition, settings in conditions.items()
} | {
    condition: {"seeds": config["seeds"], "evaluations": plan["evaluations"]}
    for plan in config["experiments"].values()
    for condition in plan["conditions"]
}


def judged_files(evaluation=None, folder="judged"):
    """The judged answers, of all evaluations or of one; in the folder `answers` the same as they were sampled."""
    return [
        f"data/{{study}}/{folder}/{condition}/seed-{seed}/{each}.parquet"
        for condition, settings in JUDGED.items()
        for seed in settings["seeds"]
        for each in settings["evaluations"]
        if evaluation in (None, each)
    ]


def run_notebook(**parameters):
    """The command of a rule whose work is done by its `input.notebook`, with these templates as the notebook's parameters."""
    command = ["python -m emergent_misalignment.workflow.notebook {input.notebook} {log.notebook} {output.notebook}"]
    return " ".join(command + [f"{name}={template}" for name, template in parameters.items()])


def executed_notebooks(wildcards):
    """The study's executed notebooks, in the order of reading."""
    return expand("data/{study}/notebooks/{name}.ipynb", study=wildcards.study, name=NOTEBOOKS)


# What the paper and the reading room show of the results.
RESULT = re.compile(
    r"figures/[^/]+/\w+\.svg|data/[^/]+/(tables|datasets)/\w+\.csv|.*/base/(gate.json|model.safetensors)"
)


def study_results(wildcards):
    """The figures and tables of the study: those of the rules that execute its notebooks."""
    notebooks, results = set(executed_notebooks(wildcards)), []
    for each in workflow.rules:
        # Snakemake writes the constraint of a wildcard into the patterns, as in {study,smoke}.
        outputs = [re.sub(r"\{study\b[^}]*\}", wildcards.study, str(path)) for path in each.output]
        if notebooks.intersection(outputs):
            results += [path for path in outputs if RESULT.fullmatch(path)]
    return results
