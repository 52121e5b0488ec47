"""What is wrong with a study though its config fits the schema, found before anything is computed.

Each check yields one sentence a mistake. None of them reads a file but `check_files`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.evaluation.measures import FREE_FORM
from emergent_misalignment.evaluation.published_questions import FILES_OF
from emergent_misalignment.evaluation.verdicts import MINIMUM_ANSWERS
from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow.schema import closest, shortened

if TYPE_CHECKING:
    from emergent_misalignment.workflow.plan import Condition, Plan

UNTUNED = ("instruct", "base", "in_context")  # what claims, figures and folders call models before fine-tuning
FOLDERS = ("published", "judge")  # data/published and kept/judge, which studies share
VARIED = ("ladder", "worlds")  # sections that are experiments of their own
FOLLOWING = "following-"  # before a condition's name: the answers at its checkpoints
UNREADABLE = ("na", "n/a", "nan", "null", "none", "true", "false")  # what a table with such a name would be read as
LOCAL = ("learning_rate", "steps", "batch_size")  # settings of a condition's own: fine-tuned here,
BY_API = ("epochs", "batch_size", "learning_rate_multiplier")  # and by OpenAI


def check(plan: Plan) -> None:
    """Raises BadInput if a plan contradicts itself, or would lose or mislabel what it computes."""
    for sentences in (_names(plan), _settings(plan), *(_condition(plan, each) for each in plan.conditions.values())):
        for sentence in sentences:
            raise BadInput(sentence)


def check_files(plan: Plan) -> None:
    """Raises BadInput if a file is missing that the study reads and no rule makes."""
    for condition in plan.tuned.values():
        if condition.dataset.endswith(".jsonl") and not Path(condition.dataset).is_file():
            raise BadInput(
                f"{_place(condition)} has the dataset {shortened(condition.dataset, 120)}, and there is no such file; "
                "a relative path begins at the folder of the project."
            )
    for name in plan.config.get("compare", []):
        if not Path(f"data/{name}/tables/claims.csv").is_file():
            raise BadInput(f"The config compares with the study {name}, which has no claims yet; run it first.")


def _place(condition: Condition) -> str:
    return f"The condition {condition.name} of the experiment {condition.experiment}"


# --- names ------------------------------------------------------------------------------------------------------------


def _names(plan: Plan) -> Iterator[str]:
    if plan.study in FOLDERS:
        yield f"A study cannot be named {plan.study}, as a folder is that all studies share; rename it."
    if plan.study in plan.config.get("compare", []):
        yield f"The study {plan.study} cannot be compared with itself; remove it from compare."
    for name, times in Counter(plan.organisms).items():
        if times > 1:
            yield f"Two kinds of organism are named {name} (main, those of ladder, those of worlds); rename one."
    for name in plan.config["experiments"]:
        if name in VARIED or name.startswith(FOLLOWING):
            yield f"An experiment cannot be named {name}, as the workflow names some of its own; rename it."
    alike: dict[str, str] = {}
    for name in plan.conditions:
        if (other := alike.setdefault(name.lower(), name)) != name:
            yield f"The conditions {other} and {name} differ in capitals only, which some disks ignore; rename one."
        if name.startswith(FOLLOWING):
            yield f"A condition cannot be named {name}, as the workflow names answers at checkpoints; rename it."
        if name.lower() in UNREADABLE or _is_number(name):
            yield f"A condition cannot be named {name}, which tables would take for a value; rename it."
    for name in plan.published_sets:
        if name in DATASETS:
            yield f"published_sets cannot have the name {name}, which is that of a set of the paper; rename it."


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


# --- conditions -------------------------------------------------------------------------------------------------------


def _condition(plan: Plan, condition: Condition) -> Iterator[str]:
    yield from (_tuned(plan, condition) if condition.dataset else _untuned(plan, condition))
    place = _place(condition)
    if not plan.is_organism:
        if condition.start != plan.start:
            yield f"{place} starts from {condition.start}, and model: untuned is {plan.start}; use that."
        for name in condition.evaluations:
            if name not in FILES_OF:
                yield (
                    f"{place} is asked {name}, which was not published and only an organism has; choose from "
                    f"{', '.join(FILES_OF)}."
                )
    if plan.by_api and "choices" in condition.evaluations:
        yield f"{place} is asked choices, which an API gives no probabilities of; remove it from evaluations."


def _untuned(plan: Plan, condition: Condition) -> Iterator[str]:
    place = _place(condition)
    own = {
        **{"rows": condition.rows, "checkpoints": condition.checkpoints, "finetuning": condition.finetuning},
        "template": condition.template != "chat",
    }
    if given := [name for name, value in own.items() if value]:
        yield f"{place} has {given[0]} and no dataset, so that it is not fine-tuned; give it a dataset."
    starts = {plan.start: plan.start}
    if plan.is_organism:
        starts |= {"base": "base", "in_context": "instruct"}
    if condition.name not in starts:
        yield (
            f"{place} has no dataset, so that it is the untuned model once more; give it a dataset, or name it "
            f"{condition.start}."
        )
    elif starts[condition.name] != condition.start:
        yield f"{place} starts from {condition.start}; say start: {starts[condition.name]}, or rename it."


def _tuned(plan: Plan, condition: Condition) -> Iterator[str]:
    place, settings = _place(condition), plan.settings_of(condition)
    if condition.name in UNTUNED:
        yield f"{place} is fine-tuned, and its name is that of an untuned model; rename it."
    known = plan.known_sets
    if not condition.dataset.endswith(".jsonl") and condition.dataset not in known:
        near = closest(condition.dataset, known)
        hint = f"did you mean {near}?" if near else f"choose one of {', '.join(known)}, or a file that ends in .jsonl."
        yield f"{place} has the dataset {shortened(condition.dataset)}, which this study does not have; {hint}"
    if condition.name in known and condition.dataset in known and condition.dataset != condition.name:
        yield f"{place} has the name of one set and the dataset {condition.dataset}; rename it."
    yield from _own_settings(plan, condition)
    rows = known.get(condition.dataset)
    if rows is not None and condition.rows > rows:
        yield f"{place} takes {condition.rows:,} rows of {condition.dataset}, which has {rows:,}; lower its rows."
    rows = condition.rows or rows
    if rows is not None and rows <= math.ceil(rows * settings.get("held_out_share", 0)):
        yield f"{place} has {rows} rows, and finetuning: held_out_share leaves none to train on; take more rows."


def _own_settings(plan: Plan, condition: Condition) -> Iterator[str]:
    place, allowed = _place(condition), BY_API if plan.by_api else LOCAL
    for name, value in condition.finetuning.items():
        if name not in allowed:
            yield f"{place} has finetuning: {name}, which is no setting here; choose from {', '.join(allowed)}."
        elif value is None and not plan.by_api:
            yield f"{place} has finetuning: {name} as null; give it a number."
    if plan.by_api and condition.template != "chat":
        yield f"{place} has the template {condition.template}, and OpenAI trains in the model's own; remove it."
    if not condition.checkpoints:
        return
    if plan.by_api:
        yield f"{place} has checkpoints, which an API's fine-tuning does not keep; remove them."
        return
    if "dynamics" not in plan.config:
        yield f"{place} has checkpoints, and the config no dynamics, which says how they are asked; add that section."
    steps = plan.settings_of(condition)["steps"]
    if (last := max(condition.checkpoints)) > steps:
        yield f"{place} keeps a checkpoint after step {last}, and trains for {steps} steps; lower checkpoints."


# --- settings ---------------------------------------------------------------------------------------------------------


def _settings(plan: Plan) -> Iterator[str]:
    judge = plan.config["judge"] or {}
    if "choices" in plan.config["evaluation"].get("prompts_of", {}):
        yield "evaluation: prompts_of cannot have choices, whose options are compared with one another; remove it."
    if judge and (judge["kind"] == "grammar") != plan.is_organism:
        kind = (
            "an organism's world has prompts for no judge model" if plan.is_organism else "it knows the organism only"
        )
        yield f"judge: kind cannot be {judge['kind']} in this study, because {kind}; see config/schema.yaml."
    if judge and judge["kind"] == "grammar" and len(judge) > 1:
        yield f"judge: {next(name for name in judge if name != 'kind')} says nothing to the grammar; remove it."
    if plan.is_organism and plan.config["steering"]["depth"] > (layers := plan.config["organism"]["layers"]):
        yield f"steering: depth is {plan.config['steering']['depth']}, and the organism has {layers} layers; lower it."
    if plan.persona and (plan.start != "instruct" or not plan.by_log_probability):
        yield (
            "A persona direction needs a model that follows system prompts (model: untuned: instruct) and the "
            "evaluation choices, by which steering is measured; change that, or set persona_direction to null."
        )
    layers = plan.config.get("model", {}).get("shape", {}).get("num_hidden_layers", math.inf)
    if plan.persona and plan.persona["depth"] > layers:
        yield f"persona_direction: depth is {plan.persona['depth']}, and the model has {layers} layers; lower it."
    if plan.held_out and (plan.is_organism or plan.by_api):
        yield (
            "evaluation: held_out is for models that are fine-tuned here on sets that are given: an organism is asked "
            "for code that is in no set, and an API gives no loss; remove it."
        )
    for name, number in plan.samples.items():
        if judge and name in FREE_FORM and number < MINIMUM_ANSWERS:
            yield (
                f"Of {name} {number} answers are drawn to a question, and a rate needs {MINIMUM_ANSWERS}; raise "
                "evaluation: samples, or samples_of."
            )
