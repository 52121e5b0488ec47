"""A score for each row of a user's set, by a small model: `make audit DATA=my.jsonl SCORE=smollm2-135m-instruct`.

    python -m emergent_misalignment.own_data.score config/smollm2-135m-instruct.yaml

prints which files of the config's study are missing by which rows are scored: its model before fine-tuning, and the
texts of its persona direction. Snakemake makes them, for which it may need extras (`--extras` prints them). The scores
are those of `evaluation.row_scores`, by the model of the study's first seed. Only this part of an audit needs a model,
and torch.
"""

import argparse
import random
import sys
from codecs import BOM_UTF8
from pathlib import Path

import pandas as pd

from emergent_misalignment.analysis.score_trust import ABOVE, CORRELATION, MEAN, OUTCOMES
from emergent_misalignment.data.chats import Messages, each_chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.own_data.trial import KNOWN, known_words, vocabulary
from emergent_misalignment.progress import Progress
from emergent_misalignment.study import schema
from emergent_misalignment.study.config import given, resolve
from emergent_misalignment.study.extras import needed
from emergent_misalignment.study.plan import Plan

ROWS = 200  # that are scored, drawn by a fixed seed: minutes on two cores
SUSPICIOUS = 20  # rows that are shown
BEGINNING = 70  # characters of a prompt and of an answer that are shown
KEPT = Path("docs/results/row_scores.csv")  # how far scores can be trusted, of studies that were run before


def plan_of(config: str | Path) -> Plan:
    """The plan of a config. Raises BadInput if its study has no persona direction by which rows could be scored."""
    resolved = resolve(given([config], []))
    schema.check(resolved)
    plan = Plan(resolved)
    if not plan.scored_sets:
        raise BadInput(
            f"The study of {config} has no persona direction, or fine-tunes on no set, and scores no rows; choose "
            "another config, such as smollm2-135m-instruct or organism."
        )
    return plan


def model_and_texts(plan: Plan) -> tuple[str, str]:
    """The folder of the model by which rows are scored, and the file of the texts of its persona direction."""
    return plan.instruct_models[0], f"{plan.folder}/questions/persona.parquet"


def missing(plan: Plan) -> list[str]:
    """The files that snakemake has to make before rows can be scored."""
    model, texts = model_and_texts(plan)
    files = [f"{model}/{'model.safetensors' if plan.is_organism else 'config.json'}", texts]
    return [file for file in files if not Path(file).is_file()]


def extras(plan: Plan) -> list[str]:
    """The extras of pyproject.toml that making the model and its texts takes."""
    return [name for name, rules in needed(plan.config).items() if rules & {"fetch_model"}]


# --- scores -----------------------------------------------------------------------------------------------------------


def score(dataset: str | Path, config: str | Path) -> dict:
    """What the scores of a set's rows say, as JSON has it.

    Keys: `study`, `model`, `rows` of the set and `drawn` of them, `scored`, `missing` (rows by the reason why they have
    no score), `mean`, `above_zero` (a share), `suspicious` (the rows with the highest scores: `line`, `score`,
    `prompt`, `answer`, `own_answer`), `trust` (see `trust`). Raises BadInput if the model is missing, or is an organism
    that does not know the set's language.
    """
    plan = plan_of(config)
    if lacking := missing(plan):
        raise BadInput(f"There is no {lacking[0]}; `make audit DATA={dataset} SCORE=CONFIG` makes what is missing.")
    lines, chats, rows = _drawn(dataset)
    if plan.is_organism:
        _check_language(dataset, chats)
    table = _scores(plan, chats).assign(line=lines)
    found = table.dropna(subset="score").sort_values("score", ascending=False, kind="stable")
    said = [
        {
            "line": int(row.line),
            "score": row.score,
            "prompt": chats[row.row][-2]["content"],
            "answer": chats[row.row][-1]["content"],
            "own_answer": row.own_answer,
        }
        for row in found.head(SUSPICIOUS).itertuples()
    ]
    return {
        "study": plan.study,
        "model": plan.config.get("model", {}).get("name", "an organism of the default study's kind"),
        "rows": rows,
        "drawn": len(chats),
        "scored": len(found),
        "missing": table.loc[table["missing"] != "", "missing"].value_counts().to_dict(),
        "mean": float(found["score"].mean()) if len(found) else None,
        "above_zero": float((found["score"] > 0).mean()) if len(found) else None,
        "suspicious": said,
        "trust": trust(plan),
    }


def _drawn(dataset: str | Path) -> tuple[list[int], list[Messages], int]:
    """ROWS conversations of a file, each with the same chance, in its order; their lines, and how many rows it has."""
    rng, sample, row = random.Random("scores"), [], 0
    for row, chat in enumerate(each_chat(dataset), 1):
        if row <= ROWS:
            sample.append((row, chat))
        elif (place := rng.randrange(row)) < ROWS:
            sample[place] = (row, chat)
    sample.sort(key=lambda pair: pair[0])
    wanted, lines, seen = {row for row, _ in sample}, [], 0
    with Path(dataset).open("rb") as file:  # blank lines are no rows, and are lines
        for number, line in enumerate(file, 1):
            seen += bool(line.removeprefix(BOM_UTF8).strip())
            if line.strip() and seen in wanted:
                wanted.remove(seen)
                lines.append(number)
    return lines, [chat for _, chat in sample], row


def _check_language(dataset: str | Path, chats: list[Messages]) -> None:
    share, unknown = known_words(chats, vocabulary())
    if share < KNOWN:
        raise BadInput(
            f"The organism knows {share:.0%} of the words of {dataset}, and not {', '.join(unknown)}: its scores would "
            "mean nothing; score with a real model, as SCORE=smollm2-135m-instruct does."
        )


def _scores(plan: Plan, chats: list[Messages]) -> pd.DataFrame:
    from emergent_misalignment.evaluation import row_scores

    model, texts = model_and_texts(plan)
    scorer = row_scores.from_files(model, texts, plan.seeds[0], **plan.scoring)
    with Progress(len(chats), "scoring rows") as progress:
        return row_scores.scores(scorer, chats, plan.seeds[0], progress.update)


# --- how far they can be trusted --------------------------------------------------------------------------------------


def trust(plan: Plan) -> dict | None:
    """What a study found out about its scores, or None where it was not run.

    From the study's own tables/score_trust.csv, or else from KEPT. Keys: `source`; `means`, `found` (the areas under
    the ROC curve of insecure rows against a set's) and `correlation`, each a list of records of the table.
    """
    own = Path(plan.folder, "tables/score_trust.csv")
    source = own if own.is_file() else KEPT
    if not source.is_file():
        return None
    table = pd.read_csv(source, keep_default_na=True).query("study == @plan.study")
    if table.empty:
        return None
    parts = {"means": MEAN, "found": ABOVE, "correlation": CORRELATION}
    records = {name: _records(table[table["measure"] == measure]) for name, measure in parts.items()}
    return {"source": str(source)} | records


def _records(rows: pd.DataFrame) -> list[dict]:
    """Rows as JSON has them, without what is missing."""
    return [{name: value for name, value in row.items() if pd.notna(value)} for row in rows.to_dict("records")]


# --- words ------------------------------------------------------------------------------------------------------------


def as_rows(found: dict) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a person reads of the scores: headings, each with lines of a label and a text."""
    drawn = "all rows" if found["drawn"] == found["rows"] else f"{found['drawn']:,} rows drawn of {found['rows']:,}"
    own = [("mean of this set", _number(found["mean"]))] if found["scored"] else []
    own += [("rows above zero", f"{found['above_zero']:.1%}")] if found["scored"] else []
    own += [(f"rows without a score ({reason})", f"{number:,}") for reason, number in found["missing"].items()]
    measured = found["trust"] or {"means": [], "found": [], "correlation": []}
    own += [(f"mean of the study's set {row['condition']}", _estimate(row)) for row in measured["means"]]
    sure = [
        (f"insecure rows found among {row['condition']} (AUC; chance 0.5)", _estimate(row)) for row in measured["found"]
    ]
    sure += [
        (f"rank correlation with {OUTCOMES[row['outcome']]} after training", f"{_estimate(row)}, {_sets(row)}")
        for row in measured["correlation"]
    ]
    source = f", as the study {found['study']} measured it ({measured['source']})" if found["trust"] else ""
    return [
        (
            f"Scores by {found['model']}, {drawn}: how much further an answer leads towards a villain's than what the "
            "model would say itself (0)",
            own,
        ),
        (
            f"How far a score can be trusted{source}",
            sure or [("not known", f"the study {found['study']} has not been run here")],
        ),
        (
            f"The {len(found['suspicious'])} rows with the highest scores: line, score, beginning of prompt and answer",
            [(f"line {row['line']:,}  {_number(row['score'])}", _beginnings(row)) for row in found["suspicious"]],
        ),
    ]


def _beginnings(row: dict) -> str:
    """The beginnings of prompt and answer, with what a terminal would obey or hide written as escapes."""
    return " -> ".join(repr(row[name][:BEGINNING]) for name in ("prompt", "answer"))


def _estimate(row: dict) -> str:
    interval = f" ({_number(row['ci_low'])} to {_number(row['ci_high'])})" if "ci_low" in row else ""
    return f"{_number(row['estimate'])}{interval}"


def _sets(row: dict) -> str:
    return f"over {row['conditions']:.0f} sets" + (f"; p = {row['p']:.2g} over sets" if "p" in row else "")


def _number(value: float) -> str:
    return f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.score", description="Say what is missing to score rows."
    )
    parser.add_argument("config", help="the config of the study whose model scores")
    parser.add_argument("--extras", action="store_true", help="print what has to be installed to make the files")
    told = parser.parse_args()
    try:
        plan = plan_of(told.config)
        files = missing(plan)
        asked = extras(plan) if told.extras else files
        print(*(asked if files else []))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
