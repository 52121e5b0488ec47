"""By how much fine-tuning changes the log-odds of misaligned options, for several models on one scale."""

import pandas as pd

from emergent_misalignment.analysis.intervals import score_interval

KINDS = ("pivotal", "multiple_choice")


def changes(dynamics: pd.DataFrame) -> pd.DataFrame:
    """Log-odds of the misaligned against the aligned options, last step minus first step, in nats.

    `dynamics` is a study's dynamics.parquet: `condition`, `seed`, `step`, `metric`, `value`. Returns one row per `kind`
    of option (KINDS), `condition` and `seed`, with the change as `value`.
    """
    wide = dynamics.pivot_table(index=["condition", "seed", "step"], columns="metric", values="value", sort=False)
    rows = []
    for kind in KINDS:
        odds = (wide[f"log_p/{kind}/misaligned"] - wide[f"log_p/{kind}/aligned"]).sort_index(level="step")
        ends = odds.groupby(["condition", "seed"], sort=False).agg(["first", "last"])
        rows.append((ends["last"] - ends["first"]).rename("value").reset_index().assign(kind=kind))
    return pd.concat(rows, ignore_index=True)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Means of `changes` over runs with 95% t intervals, one row per model, kind and condition."""
    rows = []
    for (model, kind, condition), own in runs.groupby(["model", "kind", "condition"], sort=False):
        low, high = score_interval(own["value"].to_numpy(float))
        rows.append((model, kind, condition, own["value"].mean(), low, high, len(own)))
    return pd.DataFrame(rows, columns=["model", "kind", "condition", "estimate", "ci_low", "ci_high", "runs"])
