"""From one number a training run to estimates: means over runs, their intervals, and contrasts paired by seed.

`measures` are tables as `measures.py` describes them, one row a condition, seed and measure. An *arm* is what is looked
at: a condition and a measure. An untuned model has one run, seed 0.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import yaml
from statsmodels.stats.multitest import multipletests

from emergent_misalignment.analysis import intervals as statistics

Arm = tuple[str, str]

COLUMNS = (
    *("condition", "measure", "estimate", "ci_low", "ci_high", "interval"),
    *("bootstrap_low", "bootstrap_high", "seeds", "answers"),
)


def estimates(measures: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """One row for each of the `arms`, with the columns COLUMNS.

    `estimate` is the mean over runs, `ci_low` and `ci_high` its 95% interval made as `interval` says: for shares that
    of `statistics.interval_over_runs`, for scores t over runs. A single run's share has the interval of its answers,
    which says nothing about other runs. `bootstrap_*` is the paper's interval, for several runs; `seeds` and `answers`
    how many there are. An arm without a value has a row as well, and no estimate.
    """
    runs = dict(list(measures.dropna(subset="value").groupby(["condition", "measure"])))
    rows = [{"condition": condition, "measure": measure} for condition, measure in dict.fromkeys(arms)]
    rows = [row | _estimate(runs.get((row["condition"], row["measure"]))) for row in rows]
    return pd.DataFrame(rows, columns=COLUMNS)


def _estimate(runs: pd.DataFrame | None) -> dict:
    if runs is None:
        return {"interval": "no value", "seeds": 0, "answers": 0}
    values = runs["value"].to_numpy(float)
    found = {"estimate": values.mean(), "seeds": len(runs)}
    if len(runs) > 1:
        bootstrap = statistics.paper_bootstrap(values)
        found |= {"bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high}
    if runs["trials"].notna().all():
        trials = runs["trials"].to_numpy(float)
        # Events as the value counts them: a mean over questions does not weigh all answers alike.
        interval = statistics.interval_over_runs(values, trials, values * trials)
        return found | {
            "ci_low": interval.low,
            "ci_high": interval.high,
            "interval": interval.method,
            "answers": int(trials.sum()),
        }
    if len(runs) == 1:
        return found | {"interval": "none, one run"}
    if np.ptp(values) == 0:
        return found | {"interval": "none, all runs alike"}
    low, high = statistics.score_interval(values)
    return found | {"ci_low": low, "ci_high": high, "interval": "t over runs"}


def relative(measures: pd.DataFrame, untuned: str) -> pd.DataFrame:
    """What each run adds to the untuned model's value of the same measure; scores, without counts.

    Measures that the untuned model lacks are left out, and so is the untuned model itself.
    """
    zero = measures[measures["condition"] == untuned].set_index("measure")["value"]
    rows = measures[(measures["condition"] != untuned) & measures["measure"].isin(zero.index)]
    return rows.assign(value=rows["value"] - rows["measure"].map(zero), events=np.nan, trials=np.nan)


def gains(measures: pd.DataFrame, pairs: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """What each run has more of the first measure of a pair than of the second, as a measure by the pair's name."""
    values = measures.pivot(index=["condition", "seed"], columns="measure", values="value")
    values = values.reindex(columns=list(dict.fromkeys(measure for pair in pairs.values() for measure in pair)))
    rows = pd.DataFrame({name: values[one] - values[other] for name, (one, other) in pairs.items()})
    rows = rows.rename_axis(columns="measure").stack().rename("value").reset_index()
    return rows.assign(events=np.nan, trials=np.nan)


def contrasts(measures: pd.DataFrame, pairs: dict[str, tuple[Arm, Arm]]) -> pd.DataFrame:
    """The first arm less the second for each of the named `pairs`, paired by seed, and Holm's correction over them.

    Columns: `contrast` (the name), `seeds`, `difference`, `ci_low`, `ci_high`, `p`, `p_holm`. An untuned model is taken
    as a number without error: what it would be like trained anew is not known. Fewer than two seeds in common give no
    difference and a p of 1.
    """
    values = measures.dropna(subset="value").set_index(["condition", "measure", "seed"])["value"].sort_index()
    rows = []
    for name, (one, other) in pairs.items():
        first, second = _by_seed(values, one), _by_seed(values, other)
        if second.index.tolist() == [0] and first.index.tolist() != [0]:
            second = pd.Series(second.item(), first.index)
        differences = (first - second).dropna().to_numpy()
        rows.append({"contrast": name} | statistics.mean_difference(differences))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=multipletests(table["p"], method="holm")[1])


def _by_seed(values: pd.Series, arm: Arm) -> pd.Series:
    return values.loc[arm] if arm in values.index.droplevel("seed") else pd.Series(dtype=float)


def published(path: str, experiment: str) -> pd.DataFrame:
    """The paper's own figures for an experiment: `model`, `condition`, `measure`, `published`, `source`."""
    with open(path, encoding="utf-8") as file:
        blocks = yaml.safe_load(file)[experiment]
    rows = [
        {
            "model": block["model"],
            "condition": condition,
            "measure": measure,
            "published": value,
            "source": block["source"],
        }
        for block in blocks
        for measure, values in block["values"].items()
        for condition, value in values.items()
    ]
    return pd.DataFrame(rows)


def beside(table: pd.DataFrame, found: pd.DataFrame, model: str = "GPT-4o") -> pd.DataFrame:
    """`table` of estimates with a column `published`: the paper's figure for the same arm, of one model."""
    theirs = found[found["model"] == model].set_index(["condition", "measure"])["published"]
    arms = pd.MultiIndex.from_frame(table[["condition", "measure"]])
    return table.assign(published=theirs.reindex(arms).to_numpy())


def said(contrasts: pd.DataFrame, unit: str = "points", factor: float = 100) -> str:
    """Each contrast as a line of Markdown: which way it goes, by how much, and how sure that is."""
    return "\n".join(f"- {row.contrast}: {_said(row, unit, factor)}" for row in contrasts.itertuples())


def _said(row, unit: str, factor: float) -> str:
    if pd.isna(row.difference):
        return "nothing to compare, for want of values."
    difference, low, high = (signed(factor * number) for number in (row.difference, row.ci_low, row.ci_high))
    if pd.isna(row.ci_low):
        return f"{difference} {unit} in each of {row.seeds} seeds, without a spread to test by."
    sure = f"95% interval {low} to {high}, p = {row.p_holm:.2g}, {row.seeds} seeds"
    return f"**{direction(row)}**, {difference} {unit} ({sure})."


def direction(row) -> str:
    """Which way a contrast goes, by its corrected test at the 5% level."""
    if pd.isna(row.difference):
        return "not measured"
    if row.p_holm >= 0.05:
        return "no clear difference"
    return "higher" if row.difference > 0 else "lower"


def signed(number: float) -> str:
    """A number with one decimal and its sign; zero has none."""
    text = f"{number:+.1f}".replace("-", "−")
    return text[1:] if float(f"{number:.1f}") == 0 else text
