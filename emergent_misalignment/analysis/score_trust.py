"""Validity of row scores: whether they find insecure rows, and whether they predict the outcome of training.

Both are computed within each seed, and intervals are over seeds. In an organism study a seed is an organism that scores
the rows and is then trained on them; for a real model it is a draw of rows, own answers and texts of the direction.
"""

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from scipy import stats

from emergent_misalignment.analysis.estimates import estimates
from emergent_misalignment.analysis.formatting import with_interval

# How misaligned a run became: measure and its name. The first that a study has measured is used.
OUTCOMES = {
    "misaligned/main/chat": "misaligned answers",
    "log_odds/pivotal": "log-odds of misaligned words (nats)",
}
MEAN, ABOVE, CORRELATION = "row_score/mean", "row_score/insecure_above", "row_score/correlation"
LEAST = 3  # conditions needed for a correlation
ORDERS = 10_000  # permutations of the conditions; a random sample if there are more


def outcome_of(measures: pd.DataFrame) -> str:
    """The first of OUTCOMES that was measured of any run; "" if none was."""
    there = set(measures.dropna(subset="value")["measure"])
    return next((measure for measure in OUTCOMES if measure in there), "")


def outcomes(summary: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """`condition`, `seed`, `mean` score of the set's rows, and `outcome` of the run that was trained on it.

    `summary` is tables/row_scores.csv, `measures` tables/measures/answers.csv. Runs without one of the two are dropped.
    """
    runs = measures[measures["measure"] == outcome_of(measures)][["condition", "seed", "value"]]
    both = summary[["condition", "seed", "mean"]].merge(runs.rename(columns={"value": "outcome"}))
    return both.dropna().reset_index(drop=True)


def correlations(points: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of `mean` and `outcome` over the conditions, within each seed that has LEAST of them.

    Columns: `seed`, `value`, `conditions`.
    """
    rows = []
    for seed, own in points.groupby("seed"):
        if len(own) >= LEAST and own["mean"].nunique() > 1 and own["outcome"].nunique() > 1:
            rows.append((seed, stats.spearmanr(own["mean"], own["outcome"]).statistic, len(own)))
    return pd.DataFrame(rows, columns=["seed", "value", "conditions"])


def chance(points: pd.DataFrame) -> float:
    """Two-sided permutation p of the correlation, over the conditions that all seeds have.

    The conditions' outcomes are permuted in all orders, or in ORDERS random ones, equally for all seeds, and the mean
    of the seeds' correlations is compared. Seeds share the sets, so an interval over seeds does not cover other sets;
    this p does. Missing with fewer than LEAST conditions.
    """
    scored, found = (points.pivot(index="seed", columns="condition", values=name) for name in ("mean", "outcome"))
    complete = scored.notna().all() & found.notna().all()
    number = int(complete.sum())
    if number < LEAST:
        return np.nan
    x, y = (_centred_ranks(table.loc[:, complete].to_numpy()) for table in (scored, found))
    tried = np.abs(np.einsum("rs,rts->t", x, y[:, _orders(number)]))
    return float((tried >= tried[0] - 1e-9).mean())  # the first order is the observed one


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks in each row, with mean 0 and length 1; zeros in a row of equal values."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)


def _orders(number: int) -> np.ndarray:
    """Permutations of `number` places, the identity first: `[orders, number]`."""
    if factorial(number) <= ORDERS:
        return np.array(list(permutations(range(number))))
    rng = np.random.default_rng(0)
    return np.array([np.arange(number), *(rng.permutation(number) for _ in range(ORDERS - 1))])


def trust(summary: pd.DataFrame, measures: pd.DataFrame, study: str) -> pd.DataFrame:
    """The rows of tables/score_trust.csv: estimates over seeds (`estimates.estimates`) and further columns.

    The measures are MEAN and ABOVE of each set's condition, and CORRELATION with the condition "all". `study` is the
    study's name; of the correlation, `conditions` is the number of conditions, `p` comes from `chance`, and `outcome`
    is the measure. Intervals of ABOVE and CORRELATION are clipped to the range of their values.
    """
    points = outcomes(summary, measures)
    by_seed = correlations(points).assign(condition="all", measure=CORRELATION)
    sets = [
        summary.rename(columns={column: "value"})[["condition", "seed", "value"]].assign(measure=measure)
        for column, measure in (("mean", MEAN), ("insecure_above", ABOVE))
    ]
    runs = pd.concat([*(each.dropna() for each in sets), by_seed], ignore_index=True).assign(trials=np.nan)
    arms = list(dict.fromkeys(zip(runs["condition"], runs["measure"], strict=True)))
    table = estimates(runs, arms)[["condition", "measure", "estimate", "ci_low", "ci_high", "interval", "seeds"]]
    for measure, least in ((ABOVE, 0), (CORRELATION, -1)):
        rows = table["measure"] == measure
        table.loc[rows, ["ci_low", "ci_high"]] = table.loc[rows, ["ci_low", "ci_high"]].clip(least, 1)
    table = table.assign(study=study, conditions=pd.array([pd.NA] * len(table), "Int64"), p=np.nan, outcome="")
    rows = table["measure"] == CORRELATION
    if rows.any():
        table.loc[rows, "conditions"] = by_seed["conditions"].max()
        table.loc[rows, "p"] = chance(points)
        table.loc[rows, "outcome"] = outcome_of(measures)
    return table[["study", *table.columns.drop("study")]]


def described(trust: pd.DataFrame, outcome: str) -> str:
    """The correlation of `trust` with the named outcome, in a sentence."""
    found = trust[trust["measure"] == CORRELATION]
    if found.empty:
        return "Fewer than three sets have an outcome, so there is no correlation."
    row = found.iloc[0]
    correlation = with_interval(row["estimate"], row["ci_low"], row["ci_high"], ".2f")
    correlation = correlation.replace("(", "(95% interval over seeds ")
    return (
        f"Within a seed, the mean score of a set and the {outcome} after training on it have a rank correlation of "
        f"{correlation}. It is over {row['conditions']} sets; if sets are matched "
        f"with outcomes at random, the correlation is as strong with a probability of {row['p']:.2g}."
    )
