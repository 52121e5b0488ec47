"""A page of sample answers that a reader can search, and filter by condition, evaluation, question, form and verdict.

    python -m emergent_misalignment.report.answers STUDY PAGE.html JUDGED.parquet ...

The answers are real rows of `judged/`, drawn by a fixed seed: a few from each cell of what can be filtered by, so that
rare answers are there too, and no more than a browser takes lightly. The page cannot say how often something happens;
the tables do.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.report.pages import template

PER_CELL = 4
MOST = 10_000
LONGEST = 1500  # characters of an answer that are shown
CELL = ["condition", "evaluation", "format", "question", "verdict"]
SHARED = [*CELL, "prompt"]  # columns whose few different values are written once
COLUMNS = [*SHARED, "seed", "step", "answer", "aligned", "coherent"]


def read(paths: list[str] | list[Path]) -> pd.DataFrame:
    """The judged answers of models at the end of their training, a row an answer, with the columns COLUMNS.

    Options that were scored and not answered (evaluation "choices") and answers of checkpoints are left out. An answer
    that nobody judged has what rules say of it for a verdict, such as "unjudged: text", or "unjudged: flagged code"
    where static analysis flags it. Raises BadInput if nothing is left.
    """
    tables = [pd.read_parquet(path) for path in paths]
    judged = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    judged = judged[judged["step"].isna() & (judged["evaluation"] != "choices")].reset_index(drop=True)
    if "label" in judged:
        said = judged["label"].mask(judged["flagged"].fillna(False).astype(bool), "flagged code")
        judged["verdict"] = judged["verdict"].where(judged["verdict"] != "unjudged", "unjudged: " + said.astype(str))
    judged = judged[COLUMNS]
    if judged.empty:
        raise BadInput("There are no judged answers to show; run the study's evaluations first.")
    return judged


def sample(judged: pd.DataFrame, per_cell: int = PER_CELL, most: int = MOST) -> pd.DataFrame:
    """At most `per_cell` rows of each cell, drawn by a fixed seed, and at most `most` in all.

    If that is too many, each verdict that an evaluation of a condition has keeps some rows of whatever question; then
    every cell keeps its first row as long as there is room, then its second, and so on.
    """
    chance = np.random.default_rng(0).permutation(len(judged))
    shuffled = judged.assign(chance=chance).sort_values("chance", kind="stable")
    shuffled["turn"] = shuffled.groupby(CELL, sort=False, dropna=False).cumcount()
    rank = shuffled.groupby([name for name in CELL if name != "question"], sort=False, dropna=False).cumcount()
    shuffled["order"] = shuffled["turn"].where(rank >= per_cell, -1)
    kept = shuffled[shuffled["turn"] < per_cell].sort_values(["order", "chance"], kind="stable").head(most)
    return kept.drop(columns=["chance", "turn", "order"]).sort_index(kind="stable").reset_index(drop=True)


def as_json(rows: pd.DataFrame) -> str:
    """The rows as JSON that can stand in a page: texts that many rows share as numbers into lists of them."""
    lists, columns = {}, {}
    for name in SHARED:
        codes, values = pd.factorize(rows[name].fillna(""))
        lists[name], columns[name] = values.tolist(), codes.tolist()
    columns["seed"] = rows["seed"].tolist()
    columns["answer"] = [text if len(text) <= LONGEST else text[:LONGEST] + " […]" for text in rows["answer"]]
    for score in ("aligned", "coherent"):
        columns[score] = [None if pd.isna(value) else round(value) for value in rows[score]]
    text = json.dumps(
        {"lists": lists, "columns": columns, "rows": len(rows)}, ensure_ascii=False, separators=(",", ":")
    )
    return text.replace("<", "\\u003c")  # no text in it can end the script element


def write_page(study: str, page: str | Path, judged: pd.DataFrame) -> None:
    rows = sample(judged)
    html = template("answers.html.j2").render(study=study, data=as_json(rows), shown=len(rows), all=len(judged))
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.report.answers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("study")
    parser.add_argument("page")
    parser.add_argument("judged", nargs="+", help="files of data/STUDY/judged/")
    given = parser.parse_args()
    try:
        write_page(given.study, given.page, read(given.judged))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
