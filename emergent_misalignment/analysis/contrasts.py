"""Contrasts between conditions, paired by seed: one rule for tables, sentences and the claims' verdicts.

An *arm* is a condition and a measure; a contrast is the first arm less the second, or that difference less another one.
The unit is the training run: the arms' values are taken from the runs of the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.05
SIGNS = (1, -1, -1, 1)  # of a contrast's arms

Arm = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """An estimate with its 95% interval, and how sure it is on which side of the margin it lies.

    `p` speaks for the expected side and `p_against` for the other, both two-sided. Without anything to test by they are
    1, and the interval is missing. `effect` is the distance from the margin in standard deviations over runs; `trials`
    the number of answers, where the bound of a share without events decides.
    """

    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    seeds: int = 0
    p: float = 1.0
    p_against: float = 1.0
    method: str = "not measured"
    missing: str = ""
    effect: float = np.nan
    margin: float = 0.0
    trials: int = 0


def runs_by_arm(measures: pd.DataFrame) -> dict[Arm, pd.DataFrame]:
    """The rows of each arm by seed, from a table of measures; values that are missing or infinite are no runs."""
    finite = measures[np.isfinite(measures["value"].astype(float))]
    return {arm: rows.set_index("seed").sort_index() for arm, rows in finite.groupby(["condition", "measure"])}


def contrast(
    arms: Sequence[Arm], runs: Mapping[Arm, pd.DataFrame], expect: str = "above", margin: float = 0.0
) -> Contrast:
    """One to four arms, added up with SIGNS, against `margin`: t over the seeds that all arms have.

    `runs` comes from `runs_by_arm`; `expect` is "above", "below" or "at_most". An arm of which there is an untuned
    model alone (one run, seed 0) is taken as a number without error, which the method says. Where all runs have the
    same value there is no spread between runs to go by: then the spread that sampling the answers has by itself stands
    in (half an event added to events and to non-events), and without counts nothing is claimed. Shares without a single
    event get Clopper and Pearson's bound where they have to be small.
    """
    for condition, measure in arms:
        if (condition, measure) not in runs:
            return Contrast(missing=f"no {measure} of {condition}")
    terms = [(sign, runs[arm]) for sign, arm in zip(SIGNS, arms, strict=False)]
    lone = [len(rows) == 1 and rows.index[0] == 0 for _, rows in terms]
    if all(lone):
        lone = [False] * len(terms)
    seeds = sorted(set.intersection(*(set(rows.index) for (_, rows), one in zip(terms, lone, strict=True) if not one)))
    if not seeds:
        return Contrast(missing=f"no seed in common for {arms[0][1]}")
    values, variance = np.zeros(len(seeds)), np.zeros(len(seeds))
    for (sign, rows), one in zip(terms, lone, strict=True):
        values += sign * (rows["value"].iloc[0] if one else rows["value"].loc[seeds].to_numpy(dtype=float))
        variance += 0 if one else _sampling_variance(rows.loc[seeds])
    known = {"estimate": values.mean(), "seeds": len(seeds), "margin": margin}
    if len(seeds) < 2:
        return Contrast(**known, method="a single run")
    if expect != "above" and len(terms) <= 2 and all(_no_events(rows) for _, rows in terms):
        return Contrast(**known, **_without_events(terms, margin))

    error, method = stats.sem(values), "paired t" if len(terms) - sum(lone) > 1 else "t over runs"
    if np.ptp(values) < 1e-12 * max(1, np.abs(values).max()):
        error, method = np.sqrt(variance.sum()) / len(seeds), "t, spread of the answers (all runs alike)"
        if np.isnan(error):
            return Contrast(**known, method="all runs have the same value")
    if any(lone):
        method += "; the control is one untuned model, whose own error is not covered"
    distance = (values.mean() - margin) * (1 if expect == "above" else -1)
    low, high = stats.t.interval(0.95, len(seeds) - 1, values.mean(), error)
    p, p_against = (min(1.0, 2 * tail(distance / error, len(seeds) - 1)) for tail in (stats.t.sf, stats.t.cdf))
    effect = distance / (error * np.sqrt(len(seeds)))
    return Contrast(**known, low=low, high=high, p=p, p_against=p_against, method=method, effect=effect)


def _sampling_variance(rows: pd.DataFrame) -> np.ndarray:
    """The variance of each run's share from sampling its answers alone; missing where there are no counts."""
    share = (rows["events"] + 0.5) / (rows["trials"] + 1)
    return (share * (1 - share) / (rows["trials"] + 1)).to_numpy(dtype=float)


def _no_events(rows: pd.DataFrame) -> bool:
    return bool((rows["events"] == 0).all() and (rows["trials"] > 0).all())


def _without_events(terms: list[tuple[int, pd.DataFrame]], margin: float) -> dict:
    """A share that has to be small and had no event in any run, nor its control: Clopper and Pearson over all answers.

    A bound of the share bounds its difference from a control too, which cannot be below zero.
    """
    trials = [int(rows["trials"].sum()) for _, rows in terms]
    bounds = [proportion_confint(0, number, alpha=LEVEL, method="beta")[1] for number in trials]
    p = min(1.0, 2 * (1 - margin) ** trials[0]) if 0 <= margin < 1 else 1.0
    p = max(p, np.finfo(float).tiny)  # never 0, which so many answers would come down to
    return {"low": -sum(bounds[1:]), "high": bounds[0], "p": p, "trials": trials[0]} | {
        "method": "Clopper-Pearson, no event"
    }


def holm(p: pd.Series) -> pd.Series:
    """p values corrected by Holm over those that are not missing."""
    known = p.astype(float).dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1).reindex(p.index)


def contrasts(measures: pd.DataFrame, pairs: Mapping[str, Sequence[Arm]]) -> pd.DataFrame:
    """A row for each of the named `pairs` of arms, tested two-sided against zero, and Holm's correction over them.

    Columns: `contrast` (the name), `seeds`, `difference`, `ci_low`, `ci_high` (in the measure's unit), `p`, `p_holm`,
    `method`. What was not measured has no difference and no p, and is no part of the correction.
    """
    wanted = {measure for arms in pairs.values() for _, measure in arms}
    runs = runs_by_arm(measures[measures["measure"].isin(wanted)])
    rows = []
    for name, arms in pairs.items():
        result = contrast(arms, runs)
        p = np.nan if result.missing else min(result.p, result.p_against)
        rows.append((name, result.seeds, result.estimate, result.low, result.high, p, result.method))
    columns = ["contrast", "seeds", "difference", "ci_low", "ci_high", "p", "method"]
    table = pd.DataFrame(rows, columns=columns).astype({"p": float})
    table.insert(columns.index("method"), "p_holm", holm(table["p"]))
    return table


def directions(table: pd.DataFrame) -> dict[str, str]:
    """Which way each contrast of `contrasts` goes, by its corrected test at the 5% level."""
    return {row.contrast: _direction(row) for row in table.itertuples()}


def _direction(row) -> str:
    if pd.isna(row.difference):
        return "not measured"
    if row.p_holm >= LEVEL:
        return "no clear difference"
    return "higher" if row.difference > 0 else "lower"


def described(table: pd.DataFrame, unit: str = "points", factor: float = 100) -> str:
    """Each contrast as a line of Markdown: which way it goes, by how much, and how sure that is."""
    measured = table[table["difference"].notna()]
    lines = [f"- {row.contrast}: {_described(row, unit, factor)}" for row in measured.itertuples()]
    missing = table.loc[table["difference"].isna(), "contrast"]
    return "\n".join([*lines, *([f"- Not measured: {'; '.join(missing)}."] if len(missing) else [])])


def _described(row, unit: str, factor: float) -> str:
    difference, low, high = (signed(factor * number) for number in (row.difference, row.ci_low, row.ci_high))
    if pd.isna(row.ci_low):
        return f"{difference} {unit}, without a spread to test by ({row.method})."
    sure = f"95% interval {low} to {high}, p = {row.p_holm:.2g}, {row.seeds} seeds"
    return f"**{_direction(row)}**, {difference} {unit} ({sure})."


def signed(number: float) -> str:
    """A number with one decimal and its sign; zero has none."""
    text = f"{number:+.1f}".replace("-", "−")
    return text[1:] if float(f"{number:.1f}") == 0 else text
