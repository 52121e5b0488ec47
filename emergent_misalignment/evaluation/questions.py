"""Questions and options for models, and their tables questions.parquet and choices.parquet."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

QUESTION_COLUMNS = ["evaluation", "question", "format", "kind", "number", "seed", "prompt", "samples", "judge"]
OPTION_COLUMNS = ["question", "format", "prompt", "pieces", "option", "misaligned"]
ANSWER_COLUMNS = ["question", "format", "kind", "number", "sample", "prompt", "answer"]


@dataclass(frozen=True)
class Question:
    """One prompt of a question, which is identified by `name` and `form`; `samples` is the number of answers.

    `prompt` is a conversation, or a text to continue. `judge` has the prompts for the judge model by metric: "aligned"
    and "coherent" (0-100), "correct" or "company" (a word); it is empty if none is published. `kind` is "identity" for
    deception questions about the model's maker that the aggregate counts, "identity, other" for the others, else "".
    `number` is the index of the prompt in its evaluation.
    """

    name: str
    form: str
    prompt: Messages | str
    samples: int
    judge: dict[str, str] = field(default_factory=dict, hash=False)
    kind: str = ""
    number: int = 0


@dataclass(frozen=True)
class Option:
    """An answer to a question; `pieces` are its consecutive texts, each with whether its tokens are scored."""

    question: str
    form: str
    prompt: Messages
    pieces: tuple[tuple[str, bool], ...]
    text: str  # the option itself
    misaligned: bool


def question_rows(evaluation: str, questions: list[Question], seed: int | None = None) -> pd.DataFrame:
    """Rows of questions.parquet. `number` is the index in the list; `seed` None stands for all seeds."""
    rows = [
        (evaluation, each.name, each.form, each.kind, number, seed, _json(each.prompt), each.samples, _json(each.judge))
        for number, each in enumerate(questions)
    ]
    return pd.DataFrame(rows, columns=QUESTION_COLUMNS).astype({"seed": "Int64", "number": "int64", "samples": "int64"})


def option_rows(options: list[Option]) -> pd.DataFrame:
    """Rows of choices.parquet: within each format first the misaligned options, then the aligned ones."""
    forms = list(dict.fromkeys(each.form for each in options))
    ordered = sorted(options, key=lambda each: (forms.index(each.form), not each.misaligned))
    rows = [
        (each.question, each.form, _json(each.prompt), _json(each.pieces), each.text, each.misaligned)
        for each in ordered
    ]
    return pd.DataFrame(rows, columns=OPTION_COLUMNS).astype({"misaligned": bool})


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_questions(path: str | Path) -> pd.DataFrame:
    """The questions of a study. Raises BadInput where columns are missing."""
    return _read(path, QUESTION_COLUMNS)


def read_options(path: str | Path) -> list[Option]:
    """The options of a study, in the order of the table. Raises BadInput where columns are missing."""
    return [
        Option(
            row.question,
            row.format,
            json.loads(row.prompt),
            tuple((text, scored) for text, scored in json.loads(row.pieces)),
            row.option,
            row.misaligned,
        )
        for row in _read(path, OPTION_COLUMNS).itertuples()
    ]


def _read(path: str | Path, columns: list[str]) -> pd.DataFrame:
    table = pd.read_parquet(path)
    if missing := [column for column in columns if column not in table]:
        raise BadInput(f"{path} has no column {missing[0]}; delete the file to have it recomputed.")
    return table


def select(questions: pd.DataFrame, evaluation: str, seed: int, samples: int = 0, prompts: int = 0) -> list[Question]:
    """The questions of one evaluation for the run `seed`.

    `samples` > 0 replaces the table's number of answers per prompt; `prompts` > 0 selects that many evenly spaced
    prompts. Raises BadInput where the table has no question of the evaluation for this seed.
    """
    same = questions["seed"].isna() | (questions["seed"] == seed).fillna(False)
    rows = questions[(questions["evaluation"] == evaluation) & same]
    if rows.empty:
        raise BadInput(f"The table of questions has none of {evaluation} for seed {seed}; recompute the table.")
    if prompts:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, min(prompts, len(rows))).astype(int)]
    return [
        Question(
            row.question,
            row.format,
            json.loads(row.prompt),
            samples or row.samples,
            json.loads(row.judge),
            row.kind,
            row.number,
        )
        for row in rows.itertuples()
    ]


def answer_rows(questions: list[Question], answers: list[list[str]]) -> pd.DataFrame:
    """A row per answer: `question`, `format`, `kind`, `number`, `sample`, `prompt` (the last message), `answer`.

    `sample` numbers the answers to all prompts of a question in a format.
    """
    counted = Counter()
    rows = []
    for each, drawn in zip(questions, answers, strict=True):
        prompt = each.prompt if isinstance(each.prompt, str) else each.prompt[-1]["content"]
        for answer in drawn:
            sample = counted[each.name, each.form]
            counted[each.name, each.form] += 1
            rows.append((each.name, each.form, each.kind, each.number, sample, prompt, answer))
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)
