"""How far the scores of rows can be trusted: do they find insecure rows, and do they say what training will bring?

Both are looked at seed by seed, and intervals are over seeds: a seed of an organism study is an organism that scores
the rows and is then trained on them; of a real model, a draw of rows, of own answers and of the direction's texts.
"""

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from scipy import stats

from emergent_misalignment.analysis.estimates import estimates

# The measure that says how misaligned a run became, and its name: the first that a study has.
OUTCOMES = {
    "misaligned/main/chat": "misaligned answers",
    "log_odds/pivotal": "log-odds of misaligned words (nats)",
}
MEAN, ABOVE, CORRELATION = "row_score/mean", "row_score/insecure_above", "row_score/correlation"
LEAST = 3  # conditions without which there is no correlation
ORDERS = 10_000  # of conditions that are tried, drawn at random where there are more


def outcome_of(measures: pd.DataFrame) -> str:
    """The first of OUTCOMES that was measured of any run; "" if none was."""
    there = set(measures.dropna(subset="value")["measure"])
    return next((measure for measure in OUTCOMES if measure in there), "")


def outcomes(summary: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """`condition`, `seed`, `mean` score of the set's rows, and `outcome` of the run that was trained on it.

    `summary` is tables/row_scores.csv, `measures` tables/measures/answers.csv. Runs that lack one of the two are left
    out.
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
    """How often conditions that are matched with scores by chance correlate as strongly, of either sign.

    All orders of the conditions, or ORDERS drawn ones, are tried; an order is the same for all seeds, and the mean of
    their correlations is compared. Of the conditions that all seeds have. This is the p that counts: seeds share the
    sets, so that an interval over seeds says nothing about other sets. Missing with fewer than LEAST conditions.
    """
    scored, found = (points.pivot(index="seed", columns="condition", values=name) for name in ("mean", "outcome"))
    complete = scored.notna().all() & found.notna().all()
    number = int(complete.sum())
    if number < LEAST:
        return np.nan
    x, y = (_centred_ranks(table.loc[:, complete].to_numpy()) for table in (scored, found))
    tried = np.abs(np.einsum("rs,rts->t", x, y[:, _orders(number)]))
    return float((tried >= tried[0] - 1e-9).mean())  # the first order is the one that is there


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks in each row, with mean 0 and length 1; zeros in a row of equal values."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    return ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)


def _orders(number: int) -> np.ndarray:
    """Orders of so many things, the first of them unchanged: `[orders, number]`."""
    if factorial(number) <= ORDERS:
        return np.array(list(permutations(range(number))))
    rng = np.random.default_rng(0)
    return np.array([np.arange(number), *(rng.permutation(number) for _ in range(ORDERS - 1))])


def trust(summary: pd.DataFrame, measures: pd.DataFrame, study: str) -> pd.DataFrame:
    """The rows of tables/score_trust.csv: estimates over seeds as `estimates.estimates` has them, and more columns.

    MEAN and ABOVE of each set's condition, and CORRELATION, of the condition "all". `study` is its name; `conditions`
    says how many the correlation is over, `p` what `chance` gives, and `outcome` with what it is. Intervals of ABOVE
    and CORRELATION end where their values do.
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
