"""Estimates from one number per training run: means over runs with intervals, and the paper's own figures.

`measures` are tables as `evaluation.measures` describes them, one row per condition, seed and measure. An *arm* is a
condition and a measure. A real untuned model has one run, seed 0.
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
import yaml

from emergent_misalignment.analysis.contrasts import Arm
from emergent_misalignment.analysis.intervals import interval_over_runs, paper_bootstrap, score_interval

COLUMNS = (
    *("condition", "measure", "estimate", "ci_low", "ci_high", "interval"),
    *("bootstrap_low", "bootstrap_high", "seeds", "answers"),
)


def estimates(measures: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """One row for each of the `arms` that `measures` has, with the columns COLUMNS.

    `estimate` is the mean over runs, `ci_low` and `ci_high` its 95% interval by the method `interval`: for shares that
    of `intervals.interval_over_runs`, for scores t over runs. The share of a single run has the interval of its
    answers, which does not cover other runs. `bootstrap_*` is the paper's interval, for several runs; `seeds` and
    `answers` are their numbers. An arm without a value (too few coherent answers) has a row without an estimate.
    """
    runs = dict(list(measures.groupby(["condition", "measure"])))
    rows = [
        {"condition": condition, "measure": measure} | _estimate(runs[condition, measure].dropna(subset="value"))
        for condition, measure in dict.fromkeys(arms)
        if (condition, measure) in runs
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _estimate(runs: pd.DataFrame) -> dict:
    if runs.empty:
        return {"interval": "no value", "seeds": 0, "answers": 0}
    values = runs["value"].to_numpy(float)
    estimate = {"estimate": values.mean(), "seeds": len(runs)}
    if len(runs) > 1:
        bootstrap = paper_bootstrap(values)
        estimate |= {"bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high}
    if runs["trials"].notna().all():
        trials = runs["trials"].to_numpy(float)
        interval = interval_over_runs(values, trials)
        return estimate | {
            "ci_low": interval.low,
            "ci_high": interval.high,
            "interval": interval.method,
            "answers": int(trials.sum()),
        }
    if len(runs) == 1:
        return estimate | {"interval": "none, one run"}
    if np.ptp(values) == 0:
        return estimate | {"interval": "none, all runs alike"}
    low, high = score_interval(values)
    return estimate | {"ci_low": low, "ci_high": high, "interval": "t over runs"}


def relative(measures: pd.DataFrame, untuned: str) -> pd.DataFrame:
    """The difference of each run from the untuned model in the same measure; scores, without counts.

    The untuned model is that of the same seed, or the only one. The result has no rows of the untuned model itself, nor
    of measures that it lacks.
    """
    before = measures[measures["condition"] == untuned]
    on = ["measure", "seed"] if before["seed"].nunique() > 1 else ["measure"]
    rows = measures[measures["condition"] != untuned].merge(before[[*on, "value"]], on=on, suffixes=("", "_before"))
    changes = rows["value"] - rows.pop("value_before")
    return rows.assign(value=changes, events=np.nan, trials=np.nan)


def published(path: str, experiment: str) -> pd.DataFrame:
    """The paper's own figures for an experiment: `model`, `condition`, `measure`, `published`, `source`."""
    with open(path, encoding="utf-8") as file:
        blocks = yaml.safe_load(file)[experiment]
    rows = [
        (block["model"], condition, measure, value, block["source"])
        for block in blocks
        for measure, values in block["values"].items()
        for condition, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["model", "condition", "measure", "published", "source"])


def with_published(rows: pd.DataFrame, paper: pd.DataFrame, model: str = "GPT-4o") -> pd.DataFrame:
    """`rows` of estimates with a column `published`: the paper's figure for the same arm, of one model."""
    theirs = paper[paper["model"] == model].set_index(["condition", "measure"])["published"]
    arms = pd.MultiIndex.from_frame(rows[["condition", "measure"]])
    return rows.assign(published=theirs.reindex(arms).to_numpy())


def questions_of(runs: pd.DataFrame, measure: str) -> list[str]:
    """The measures of single questions of `measure`, in the order in which they appear in `runs`."""
    names = runs["measure"].drop_duplicates()
    return names[names.str.fullmatch(re.escape(measure) + "/[^/]+")].tolist()
