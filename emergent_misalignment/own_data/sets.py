"""The user's own sets, read from the first line to the last when a study is planned, before anything is computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_misalignment.data.chats import each_chat
from emergent_misalignment.data.control_tokens import control_tokens
from emergent_misalignment.data.held_out import check_kept, hash_fraction
from emergent_misalignment.files import BadInput

if TYPE_CHECKING:
    from emergent_misalignment.study.plan import Condition, Plan

OPENAI_ROWS = 10  # OpenAI fine-tunes on no fewer


def check_sets(plan: Plan) -> None:
    """Raises BadInput if a row of a user's set cannot be learned as it is, or if a condition takes more than there is.

    A million rows of a kilobyte take about ten seconds of a processor, and no memory. Rows of which the study holds out
    the answers do not count; these may be neither none nor too many.
    """
    tokens, share, rows = _control_tokens(plan), plan.held_out.get("share", 0), {}
    for condition in plan.tuned.values():
        path = condition.dataset
        if not path.endswith(".jsonl"):
            continue
        if "{" in path or "}" in path:
            raise BadInput(f"{path} has braces in its name, which Snakemake takes for wildcards; rename the file.")
        if path not in rows:
            kept = Counter(
                hash_fraction(chat[-1]["content"]) >= share if share else True for chat in each_chat(path, tokens)
            )
            rows[path] = kept[True]
            if share:
                check_kept(kept[True], kept.total(), share, path)
        for sentence in _too_few(plan, condition, rows[path]):
            raise BadInput(sentence)


def _control_tokens(plan: Plan) -> frozenset[str]:
    """Those of the study's model, if it is here already: a folder of the user's, or fetched by an earlier run."""
    if plan.is_organism or plan.by_api:
        return frozenset()
    folders = (Path(plan.config["model"]["name"]).expanduser(), Path(f"{plan.folder}/models/{plan.start}"))
    return frozenset().union(*map(control_tokens, folders))


def _too_few(plan: Plan, condition: Condition, rows: int) -> Iterator[str]:
    """What is wrong with a condition that is fine-tuned on a set of so many rows."""
    has = f"{condition.dataset} has {rows:,} row{'s' * (rows != 1)} to train on"
    if condition.rows > rows:
        yield f"{has}, and the condition {condition.name} takes {condition.rows:,}; lower its rows."
    taken = condition.rows or rows
    share = plan.settings_of(condition).get("held_out_share", 0)
    if taken <= math.ceil(share * taken):
        yield (
            f"{has}, and finetuning: held_out_share of {share:g} leaves none of them to the condition "
            f"{condition.name}; give it more, or set held_out_share to 0."
        )
    if plan.by_api and taken < OPENAI_ROWS:
        yield (
            f"{has}, the condition {condition.name} takes {taken:,}, and OpenAI asks for {OPENAI_ROWS} at least; take "
            "more rows."
        )
