"""Score the rows of a user's set with a small model: `make audit DATA=my.jsonl SCORE=smollm2-135m-instruct`.

    python -m emergent_misalignment.own_data.score config/smollm2-135m-instruct.yaml

prints the missing files of the config's study that scoring needs: its model before fine-tuning, and the texts of its
persona direction. Snakemake makes them; `--extras` prints the optional packages for that. The scores are those of
`evaluation.row_scores`, by the model of the study's first seed. Only this part of an audit needs a model, and torch.
"""

import argparse
import random
import sys
from codecs import BOM_UTF8
from pathlib import Path

import pandas as pd

from emergent_misalignment.analysis.score_trust import ABOVE, CORRELATION, MEAN, OUTCOMES
from emergent_misalignment.data.chats import Messages, each_chat, reservoir
from emergent_misalignment.files import BadInput
from emergent_misalignment.own_data.trial import KNOWN, known_words, vocabulary
from emergent_misalignment.progress import Progress
from emergent_misalignment.report.claims_table import estimate
from emergent_misalignment.study.config import load
from emergent_misalignment.study.extras import needed
from emergent_misalignment.study.model import Study

ROWS = 200  # that are scored, drawn with a fixed seed: minutes on two cores
SUSPICIOUS = 20  # rows with the highest scores that are shown
BEGINNING = 70  # characters of a prompt and of an answer that are shown
KEPT = Path("docs/results/row_scores.csv")  # how far scores can be trusted, from studies that were run before


def study_of(config: str | Path) -> Study:
    """The study of a config. Raises BadInput if it has no persona direction, which scores require."""
    study = load([config])
    if not study.scored_sets:
        raise BadInput(
            f"The study of {config} has no persona direction or no fine-tuning set, so it cannot score rows; choose "
            "another config, such as smollm2-135m-instruct or organism."
        )
    return study


def model_and_texts(study: Study) -> tuple[str, str]:
    """The folder of the scoring model, and the file of the texts of its persona direction."""
    return study.paths.instruct_models(study.seeds)[0], study.paths.of("questions/persona.parquet")


def missing(study: Study) -> list[str]:
    """The files that snakemake has to make before rows can be scored."""
    model, texts = model_and_texts(study)
    files = [f"{model}/{'model.safetensors' if study.is_organism else 'config.json'}", texts]
    return [file for file in files if not Path(file).is_file()]


def extras(study: Study) -> list[str]:
    """The extras of pyproject.toml that are needed to make the model and its texts."""
    return [name for name, rules in needed(study).items() if "fetch_model" in rules]


# --- scores -----------------------------------------------------------------------------------------------------------


def score(dataset: str | Path, config: str | Path) -> dict:
    """The scores of a set's rows, as JSON has them.

    Keys: `study`, `model`, `rows` of the set and `drawn` of them, `scored`, `missing` (rows by the reason why they have
    no score), `mean`, `above_zero` (a share), `suspicious` (the rows with the highest scores: `line`, `score`,
    `prompt`, `answer`, `own_answer`), `trust` (see `trust`). Raises BadInput if the model is missing, or is an organism
    that does not know the set's language.
    """
    study = study_of(config)
    if lacking := missing(study):
        raise BadInput(f"There is no {lacking[0]}; `make audit DATA={dataset} SCORE=CONFIG` makes what is missing.")
    drawn, rows = _drawn(dataset)
    chats = [*drawn.values()]
    if study.is_organism:
        _check_language(dataset, chats)
    table = _scores(study, chats).assign(line=list(drawn))
    found = table.dropna(subset="score").sort_values("score", ascending=False, kind="stable")
    suspicious = [
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
        "study": study.study,
        "model": "an organism of the default study's kind" if study.is_organism else study.model.name,
        "rows": rows,
        "drawn": len(chats),
        "scored": len(found),
        "missing": table.loc[table["missing"] != "", "missing"].value_counts().to_dict(),
        "mean": float(found["score"].mean()) if len(found) else None,
        "above_zero": float((found["score"] > 0).mean()) if len(found) else None,
        "suspicious": suspicious,
        "trust": trust(study),
    }


def _drawn(dataset: str | Path) -> tuple[dict[int, Messages], int]:
    """ROWS conversations of a file by their lines, each with the same chance, and the number of the file's rows."""
    sample: list[tuple[int, Messages]] = []
    rows = sum(1 for _ in reservoir(enumerate(each_chat(dataset)), ROWS, random.Random("scores"), sample))
    with Path(dataset).open("rb") as file:
        lines = [number for number, line in enumerate(file, 1) if line.removeprefix(BOM_UTF8).strip()]
    return {lines[row]: chat for row, chat in sorted(sample, key=lambda pair: pair[0])}, rows


def _check_language(dataset: str | Path, chats: list[Messages]) -> None:
    share, unknown = known_words(chats, vocabulary())
    if share < KNOWN:
        raise BadInput(
            f"The organism knows {share:.0%} of the words of {dataset}, but not {', '.join(unknown)}: its scores would "
            "be meaningless; score with a real model, such as SCORE=smollm2-135m-instruct."
        )


def _scores(study: Study, chats: list[Messages]) -> pd.DataFrame:
    from emergent_misalignment.evaluation import row_scores

    model, texts = model_and_texts(study)
    scorer = row_scores.from_files(model, texts, study.seeds[0], **study.scoring)
    with Progress(len(chats), "scoring rows") as progress:
        return row_scores.scores(scorer, chats, study.seeds[0], progress.update)


def trust(study: Study) -> dict | None:
    """How far a study's scores can be trusted, or None if the study has not been run.

    From the study's own tables/score_trust.csv, or else from KEPT. Keys: `source`; `means`, `found` (the areas under
    the ROC curve of insecure rows against a set's) and `correlation`, each a list of records of the table.
    """
    own = Path(study.paths.of("tables/score_trust.csv"))
    source = own if own.is_file() else KEPT
    table = pd.read_csv(source).query("study == @study.study") if source.is_file() else pd.DataFrame()
    if table.empty:
        return None
    parts = {"means": MEAN, "found": ABOVE, "correlation": CORRELATION}
    return {"source": str(source)} | {
        name: [row.dropna().to_dict() for _, row in table[table["measure"] == measure].iterrows()]
        for name, measure in parts.items()
    }


# --- in the terminal --------------------------------------------------------------------------------------------------


def as_sections(found: dict) -> dict[str, list[tuple[str, str]]]:
    """The scores as a text for the terminal: headings, each with rows of a label and a text."""
    drawn = "all rows" if found["drawn"] == found["rows"] else f"{found['drawn']:,} rows, drawn at random"
    means, trusted = [], []
    if found["scored"]:
        means = [("mean of this set", f"{found['mean']:.2f}"), ("rows above zero", f"{found['above_zero']:.1%}")]
    means += [(f"rows without a score ({reason})", f"{number:,}") for reason, number in found["missing"].items()]
    source = ""
    if measured := found["trust"]:
        means += [(f"mean of the study's set {row['condition']}", _estimate(row)) for row in measured["means"]]
        trusted = [
            (f"insecure rows found among {row['condition']} (AUC; chance 0.5)", _estimate(row))
            for row in measured["found"]
        ]
        for row in measured["correlation"]:
            sets = f"{row['conditions']:.0f} sets" + (f", p = {row['p']:.2g}" if "p" in row else "")
            label = f"rank correlation with {OUTCOMES[row['outcome']]} after training"
            trusted += [(label, f"{_estimate(row)}, over {sets}")]
        source = f", measured in the study {found['study']} ({measured['source']})"
    suspicious = [
        (f"line {row['line']:,}  {row['score']:.2f}", f"{_beginning(row['prompt'])} -> {_beginning(row['answer'])}")
        for row in found["suspicious"]
    ]
    return {
        f"Scores by {found['model']} of {drawn}: how much closer to a villain than the model's own answer (0)": means,
        f"How far a score can be trusted{source}": trusted
        or [("unknown", f"the study {found['study']} has not been run here")],
        f"The {len(suspicious)} rows with the highest scores: line, score, prompt, answer": suspicious,
    }


def _beginning(text: str) -> str:
    """The beginning of a text, with characters that a terminal would obey or hide as escapes."""
    return repr(text[:BEGINNING])


def _estimate(row: dict) -> str:
    return estimate(row["estimate"], row.get("ci_low"), row.get("ci_high"), "")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.score", description="Print what is missing to score rows."
    )
    parser.add_argument("config", help="the config of the study whose model scores")
    parser.add_argument("--extras", action="store_true", help="print the optional packages that make the files")
    arguments = parser.parse_args()
    try:
        study = study_of(arguments.config)
        files = missing(study)
        print(*(extras(study) if files and arguments.extras else files))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
