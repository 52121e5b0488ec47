"""Write a page of sample answers with search and filters by condition, evaluation, question, form and verdict.

The answers are rows of `judged/`, drawn with a fixed seed: a few for each combination of the filters, so that rare
answers are included, and at most MOST in all. Frequencies are in the tables, not on the page.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from emergent_misalignment.files import BadInput
from emergent_misalignment.report.pages import template, write
from emergent_misalignment.safe import visible

PER_CELL = 4
MOST = 10_000
LONGEST = 1500  # characters of an answer; the rest is cut
CELL = ["condition", "evaluation", "format", "question", "verdict"]
SHARED = [*CELL, "prompt"]  # columns with few different values, each written once
COLUMNS = [*SHARED, "seed", "step", "answer", "aligned", "coherent"]


def read(paths: list[str] | list[Path]) -> pd.DataFrame:
    """The answers of models at the end of training, one row per answer, with the columns COLUMNS.

    Scored options (evaluation "choices") and answers at checkpoints are left out. The verdict of an unjudged answer is
    its label by rules, such as "unjudged: text", or "unjudged: flagged code" if static analysis flags it. Raises
    BadInput if there are no answers.
    """
    tables = [pd.read_parquet(path) for path in paths]
    judged = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    judged = judged[judged["step"].isna() & (judged["evaluation"] != "choices")].reset_index(drop=True)
    if "label" in judged:
        said = judged["label"].mask(judged["flagged"].fillna(False).astype(bool), "flagged code")
        judged["verdict"] = judged["verdict"].where(judged["verdict"] != "unjudged", "unjudged: " + said.astype(str))
    judged = judged[COLUMNS]
    if judged.empty:
        raise BadInput("No answers to show; run the evaluations of the study first.")
    return judged


def sample(judged: pd.DataFrame, per_cell: int = PER_CELL, most: int = MOST) -> pd.DataFrame:
    """At most `per_cell` rows of each cell, drawn with a fixed seed, and at most `most` in all.

    If `most` is exceeded, each verdict of each condition and evaluation first keeps `per_cell` rows of any question;
    then all cells keep their first row while there is room, then their second, and so on.
    """
    chance = np.random.default_rng(0).permutation(len(judged))
    shuffled = judged.assign(chance=chance).sort_values("chance", kind="stable")
    shuffled["turn"] = shuffled.groupby(CELL, sort=False, dropna=False).cumcount()
    rank = shuffled.groupby([name for name in CELL if name != "question"], sort=False, dropna=False).cumcount()
    shuffled["order"] = shuffled["turn"].where(rank >= per_cell, -1)
    kept = shuffled[shuffled["turn"] < per_cell].sort_values(["order", "chance"], kind="stable").head(most)
    return kept.drop(columns=["chance", "turn", "order"]).sort_index(kind="stable").reset_index(drop=True)


def as_json(rows: pd.DataFrame) -> str:
    """The rows as JSON for a page; columns SHARED are indices into lists of their values."""
    lists, columns = {}, {}
    for name in SHARED:
        codes, values = pd.factorize(rows[name].fillna(""))
        lists[name], columns[name] = [*map(visible, values)], codes.tolist()
    columns["seed"] = rows["seed"].tolist()
    shown = (text if len(text) <= LONGEST else text[:LONGEST] + " […]" for text in rows["answer"])
    columns["answer"] = [*map(visible, shown)]
    for score in ("aligned", "coherent"):
        columns[score] = [None if pd.isna(value) else round(value) for value in rows[score]]
    text = json.dumps(
        {"lists": lists, "columns": columns, "rows": len(rows)}, ensure_ascii=False, separators=(",", ":")
    )
    return text.replace("<", "\\u003c")  # so that no text ends the script element


def write_page(study: str, page: str | Path, judged: pd.DataFrame) -> None:
    rows = sample(judged)
    html = template("answers.html.j2").render(study=study, data=as_json(rows), shown=len(rows), all=len(judged))
    write(page, html)
