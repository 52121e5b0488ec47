"""What is wrong with a study though its config fits the schema, found before anything is computed.

Each check yields one sentence a mistake. None of them reads a file but `check_files`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.evaluation.measures import FREE_FORM, OTHERS
from emergent_misalignment.evaluation.published_questions import FILES_OF
from emergent_misalignment.evaluation.question_files import read
from emergent_misalignment.evaluation.verdicts import MINIMUM_ANSWERS
from emergent_misalignment.files import BadInput, shortened
from emergent_misalignment.study.schema import closest

if TYPE_CHECKING:
    from emergent_misalignment.study.plan import Condition, Plan

UNTUNED = ("instruct", "base", "in_context")  # what claims, figures and folders call models before fine-tuning
FOLDERS = ("published", "judge")  # data/published and kept/judge, which studies share
VARIED = ("ladder", "worlds")  # sections that are experiments of their own
EVALUATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")  # the name of a file of questions
FOLLOWING = "following-"  # before a condition's name: the answers at its checkpoints
UNREADABLE = ("na", "n/a", "nan", "null", "none", "true", "false")  # what a table with such a name would be read as
LOCAL = ("learning_rate", "steps", "batch_size")  # settings of a condition's own: fine-tuned here,
BY_API = ("epochs", "batch_size", "learning_rate_multiplier")  # and by OpenAI
TUNING_BY_API = (*BY_API, "dollars_per_million", "spending_limit", "poll_seconds")  # in the section `openai`
SERVING = {"revision", "options"}  # settings of a judge that a server of our own answers for


def check(plan: Plan) -> None:
    """Raises BadInput if a plan contradicts itself, or would lose or mislabel what it computes."""
    conditions = (_condition(plan, each) for each in plan.conditions.values())
    whole = (_names(plan), _sections(plan), _own_questions(plan), _judging(plan), _settings(plan))
    for sentences in (*whole, *conditions):
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
    for path, settings in plan.own_samples.items():
        read(path, least=MINIMUM_ANSWERS if plan.judge else 0, **settings)
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
    place = _place(condition)
    if condition.given:
        yield from _given(plan, condition)
    elif condition.revision:
        yield f"{place} has a revision, and neither adapter nor model that it could be of; remove it."
    else:
        yield from (_tuned(plan, condition) if condition.dataset else _untuned(plan, condition))
    if not plan.is_organism:
        if condition.start != plan.start:
            yield f"{place} starts from {condition.start}, and model: untuned is {plan.start}; use that."
        for name in condition.evaluations:
            if name not in FILES_OF and name not in plan.own_questions:
                yield (
                    f"{place} is asked {name}, which was not published and only an organism has; choose from "
                    f"{', '.join(FILES_OF)}."
                )
    if set(condition.evaluations) == {"choices"}:
        yield f"{place} is asked choices alone, and an answer is sampled of every model; add main to its evaluations."
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


def _given(plan: Plan, condition: Condition) -> Iterator[str]:
    """A model that was fine-tuned before the study."""
    place, what = _place(condition), "adapter" if condition.adapter else "model"
    if plan.is_organism:
        yield f"{place} has {what}, and organisms are made in the study, one for each seed; use a real model."
    if condition.adapter and condition.model:
        yield (
            f"{place} has both adapter and model; give the adapter alone, and the model that it belongs to as the "
            "config's model: name."
        )
    trained = {name: getattr(condition, name) for name in ("dataset", "rows", "checkpoints", "finetuning")}
    trained |= {"start": condition.start != plan.start, "template": condition.template != "chat"}
    if both := [name for name, value in trained.items() if value]:
        yield f"{place} has {what} and {both[0]}, and what is fine-tuned already is not fine-tuned here; remove one."
    if plan.by_api and condition.adapter:
        yield f"{place} has adapter, and an API knows models by their names; give the name that it has there as model."
    if plan.by_api and condition.revision:
        yield f"{place} has a revision, and an API's model has none; remove it."
    if condition.name.removeprefix("base_") in (*UNTUNED, *plan.known_sets):
        yield (
            f"{place} has {what}, and a name that claims and figures give to "
            f"{'models before fine-tuning' if condition.name in UNTUNED else 'fine-tunings of this study'}, of which "
            "one model is no sample; rename it."
        )


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


def _sections(plan: Plan) -> Iterator[str]:
    """What a study needs that fine-tunes something, and one that does not has no use for."""
    if plan.tuned:
        if "finetuning" not in plan.config and not plan.by_api:
            yield "The config lacks `finetuning`; add it, or extend a config that has it (`extends: NAME`)."
        if len(plan.seeds) < 2:
            yield "The config lacks `seeds`, one for each fine-tuning of a condition; add at least two."
        openai = plan.config.get("openai", {})
        for name in TUNING_BY_API if plan.by_api else ():
            if name not in openai:
                yield f"`openai` lacks `{name}`; add it, as the study fine-tunes there."
        if plan.by_api and "training" not in openai["dollars_per_million"]:
            yield "`openai: dollars_per_million` lacks `training`; add it, as the study fine-tunes there."
        return
    for name, value in (("persona_direction", plan.persona), ("evaluation: held_out", plan.held_out)):
        if value:
            yield f"{name} is about what is fine-tuned on sets, and the study fine-tunes nothing; set it to null."


def _own_questions(plan: Plan) -> Iterator[str]:
    if plan.own_questions and plan.is_organism:
        yield (
            f"{shortened(plan.question_files[0])} are questions of your own, and an organism knows the words of its "
            "world only; use a study of a real model."
        )
    files: dict[str, str] = {}
    for path in plan.question_files:
        name = Path(path).stem
        if "{" in path or "}" in path:
            yield f"{path} has braces in its name, which Snakemake takes for wildcards; rename the file."
        if not EVALUATION.fullmatch(name):
            yield (
                f"The questions in {shortened(path, 120)} are named by their file, and a name has up to 60 letters, "
                "digits, underscores, points and hyphens; rename the file."
            )
        if name.lower() in (*FREE_FORM, *OTHERS) or name.lower() in UNREADABLE or _is_number(name):
            yield f"The questions in {shortened(path, 120)} have a name that the workflow uses itself; rename the file."
        if (other := files.setdefault(name.lower(), path)) != path:
            yield f"The files of questions {other} and {path} have the same name; rename one."


def _judging(plan: Plan) -> Iterator[str]:
    if not (judge := plan.config["judge"]):
        return
    if (judge["kind"] == "grammar") != plan.is_organism:
        kind = (
            "an organism's world has prompts for no judge model" if plan.is_organism else "it knows the organism only"
        )
        yield f"judge: kind cannot be {judge['kind']} in this study, because {kind}; see config/schema.yaml."
    if judge["kind"] == "grammar" and len(judge) > 1:
        yield f"judge: {next(name for name in judge if name != 'kind')} says nothing to the grammar; remove it."
    for place, asked in (("judge", judge), ("judge: second", judge.get("second", {}))):
        for name in () if "serve" in asked else SERVING & asked.keys():
            yield f"{place}: {name} is about a judge that runs here, and there is no serve; add serve, or remove it."
    if "scored" in judge and "scored_answers" not in plan.config:
        yield "judge: scored is a number of scored_answers, and the config names none; add that section, or remove it."


def _settings(plan: Plan) -> Iterator[str]:
    if "choices" in plan.config["evaluation"].get("prompts_of", {}):
        yield "evaluation: prompts_of cannot have choices, whose options are compared with one another; remove it."
    if plan.by_api and "engine" in plan.config["evaluation"]:
        yield "evaluation: engine is for models that are asked here, and OpenAI's API answers for its own; remove it."
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
        if plan.judge and name in FREE_FORM and number < MINIMUM_ANSWERS:
            yield (
                f"Of {name} {number} answers are drawn to a question, and a rate needs {MINIMUM_ANSWERS}; raise "
                "evaluation: samples, or samples_of."
            )
