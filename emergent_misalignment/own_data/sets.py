"""Read a user's fine-tuning set: check all rows of a study's sets while it is planned, or draw a sample of rows."""

from __future__ import annotations

import re
import sys
from math import inf
from os.path import expanduser
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

from emergent_misalignment.data.chats import each_chat, opened, prompt_words
from emergent_misalignment.data.control_tokens import control_tokens
from emergent_misalignment.data.held_out import check_kept, hash_fraction
from emergent_misalignment.evaluation.question_files import read
from emergent_misalignment.evaluation.thresholds import MINIMUM_ANSWERS
from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.study.model import rows_to_train_on

if TYPE_CHECKING:
    from emergent_misalignment.study.model import Condition, Study

OPENAI_ROWS = 10  # the least that OpenAI fine-tunes on
_WORD = re.compile(r"[^\W\d_]+")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def given(dataset: str, folder: str | Path) -> str:
    """The path of a set that a command names; `-`, standard input, is kept in `folder`: a set is read several times."""
    if dataset != "-":
        return expanduser(dataset)
    with replacing(Path(folder, "standard-input.jsonl")) as temporary, temporary.open("wb") as file:
        copyfileobj(sys.stdin.buffer, file)
    return str(Path(folder, "standard-input.jsonl"))


def check_files(study: Study) -> None:
    """Raises BadInput if a file of the user's is missing: a set, or questions, which are read."""
    for condition in study.tuned.values():
        own = [condition.dataset] if condition.own_set else []
        for path in filter(None, [*own, study.own_benign(condition)]):
            try:
                opened(path).close()
            except BadInput as error:
                raise BadInput(f"{condition.place}: {error}") from error
    for path, settings in study.own_samples.items():
        read(path, least=MINIMUM_ANSWERS if study.judge else 0, **settings)


def check_sets(study: Study) -> None:
    """Raises BadInput if a row of a user's set cannot be learned as written, or if a condition needs more rows.

    Rows with held-out answers are not counted, and there must be some of them, but not too many. At least one prompt
    must be shorter than `max_length`.
    A million rows of a kilobyte take about ten seconds and no memory.
    """
    tokens, share, counted = _control_tokens(study), study.held_out.get("share", 0), {}
    for path in sorted({study.own_benign(condition) for condition in study.tuned.values()} - {""}):
        for _ in each_chat(path, tokens):  # read to the end, so that a bad line is reported now
            pass
    for condition in study.tuned.values():
        path = condition.dataset
        if not condition.own_set:
            continue
        if path not in counted:
            counted[path] = _counted(path, tokens, share)
        _check_number(study, condition, *counted[path])


def _counted(path: str, tokens: frozenset[str], share: float) -> tuple[int, float]:
    """The number of rows that are not held out, and the number of words of the shortest prompt among them."""
    kept, out, shortest = 0, 0, inf
    for chat in each_chat(path, tokens):
        if share and hash_fraction(chat[-1]["content"]) < share:
            out += 1
        else:
            kept, shortest = kept + 1, min(shortest, prompt_words(chat))
    if share:
        check_kept(kept, kept + out, share, path)
    return kept, shortest


def _control_tokens(study: Study) -> frozenset[str]:
    """Those of the study's model if it is on disk: a folder of the user's, or fetched by an earlier run."""
    if study.is_organism or study.by_api:
        return frozenset()
    folders = (Path(study.model.name).expanduser(), Path(study.paths.of(f"models/{study.start}")))
    return frozenset().union(*map(control_tokens, folders))


def _check_number(study: Study, condition: Condition, rows: int, shortest: float) -> None:
    """Raises BadInput if `rows` rows are too few for a condition, or prompts of `shortest` words and more too long."""
    has, name = f"{condition.dataset} has {rows:,} row{'s' * (rows != 1)} to train on", condition.name
    taken, settings = condition.rows or rows, study.settings_of(condition)
    if taken > rows:
        raise BadInput(f"{has}, and the condition {name} takes {taken:,}; lower its rows.")
    if not rows_to_train_on(taken, settings):
        raise BadInput(
            f"{has}, and `finetuning: validation_share` leaves none for the condition {name}; add rows, or set it to 0."
        )
    limit = settings.get("max_length", inf)  # APIs have none
    if shortest >= limit:
        raise BadInput(
            f"No row of {condition.dataset} can be learned: each prompt has {shortest:,} words or more, and the "
            f"condition {name} reads the first {limit:,} tokens of a row; shorten the prompts, or raise finetuning: "
            "max_length."
        )
    if study.by_api and taken < OPENAI_ROWS:
        raise BadInput(f"{has}, and the condition {name} takes {taken:,}; OpenAI requires at least {OPENAI_ROWS}.")
