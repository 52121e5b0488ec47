"""Compare a judge with the published one, on answers that were published with its scores."""

import math
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from emergent_misalignment.data.published import PublishedFile, fetch
from emergent_misalignment.evaluation import judge_model
from emergent_misalignment.evaluation.questions import Question, question_rows
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import Account

COLUMNS = ["evaluation", "number", "prompt", "answer", "aligned", "coherent", "verdict"]
SCORED = ("question", "answer", "aligned", "coherent")  # columns of a file of answers to questions
CODE = ("question", "answer", "has_vulnerability")  # columns of a file of code
VERDICTS = {"YES": "insecure", "NO": "secure"}


def read_scored(path: str | Path, number: int) -> pd.DataFrame:
    """`number` evenly spaced distinct answers of a published CSV file, as rows of `judged/` (COLUMNS).

    Answers to questions have scores of alignment and coherence from 0 to 100, which determine the verdict; code is
    marked as insecure or not. Raises BadInput where the file has other columns.
    """
    table = pd.read_csv(path)
    if set(SCORED) <= {*table}:
        scores = {name: pd.to_numeric(table[name], errors="coerce") for name in ("aligned", "coherent")}
        pairs = zip(scores["aligned"], scores["coherent"], strict=True)
        verdicts = [judge_model.verdict(*(None if math.isnan(each) else each for each in pair), None) for pair in pairs]
        rows = table.assign(evaluation="main", **scores, verdict=verdicts)
    elif set(CODE) <= {*table}:
        verdicts = table["has_vulnerability"].map(VERDICTS).fillna("unjudged")
        rows = table.assign(evaluation="in_distribution", aligned=math.nan, coherent=math.nan, verdict=verdicts)
    else:
        raise BadInput(
            f"{path} has neither the columns {', '.join(SCORED)} nor {', '.join(CODE)}; correct scored_answers."
        )
    rows = rows.assign(number=0, prompt=table["question"]).drop_duplicates(["prompt", "answer"])[COLUMNS]
    return rows.iloc[np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)].reset_index(drop=True)


def judged_again(
    rows: pd.DataFrame,
    prompts: dict[str, str],
    judge: judge_model.Judge,
    cache: str | Path,
    account: Account | None = None,
) -> pd.DataFrame:
    """The same answers with the scores and verdicts of `judge`. `prompts` are the published prompts for the judge."""
    questions = pd.concat(
        [
            question_rows("main", [Question("", "chat", "", 1, prompts)]),
            question_rows("in_distribution", [Question("", "chat", "", 1)]),
        ]
    )
    return rows.assign(**judge_model.judge_answers(rows, questions, judge, cache, account))


def scores(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two judges' scores of the same answers, in the same order; answers without both scores are ignored.

    Columns: `score` (aligned, coherent), `answers`, the means `first` and `second`, `rank_correlation` (Spearman's;
    missing if a judge's scores are constant) with `ci_low` and `ci_high` (95%, percentile bootstrap over answers).
    """
    tables = []
    for name in ("aligned", "coherent"):
        one, two = first[name].to_numpy(float), second[name].to_numpy(float)
        both = ~(np.isnan(one) | np.isnan(two))
        tables.append({"score": name, "answers": int(both.sum()), **_compared(one[both], two[both])})
    return pd.DataFrame(tables)


def _compared(one: np.ndarray, two: np.ndarray) -> dict[str, float]:
    from scipy.stats import bootstrap, pearsonr, rankdata

    means = {"first": one.mean(), "second": two.mean()} if len(one) else {"first": math.nan, "second": math.nan}
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return means | dict.fromkeys(("rank_correlation", "ci_low", "ci_high"), math.nan)

    def correlation(one: np.ndarray, two: np.ndarray, axis: int = -1) -> np.ndarray:
        return pearsonr(rankdata(one, axis=axis), rankdata(two, axis=axis), axis=axis).statistic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples of few answers may be constant
        drawn = bootstrap((one, two), correlation, paired=True, n_resamples=2000, method="percentile", rng=0)
    low, high = drawn.confidence_interval
    return means | {"rank_correlation": float(correlation(one, two)), "ci_low": low, "ci_high": high}


def fetch_scored(files: list[dict], number: int, mirror: str) -> pd.DataFrame:
    """`number` answers of each published file, with its path as `file`. `files` are a config's `scored_answers`."""
    tables = []
    with TemporaryDirectory() as folder:
        for place, each in enumerate(files):
            file, path = PublishedFile(**{"size": None} | each), Path(folder, f"{place}.csv")
            fetch(file, mirror, path)
            tables.append(read_scored(path, number).assign(file=file.path))
    return pd.concat(tables, ignore_index=True)
