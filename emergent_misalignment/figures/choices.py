"""What fine-tuning does to the choices of several models, on one axis: organisms beside a real model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emergent_misalignment.analysis.intervals import score_interval
from emergent_misalignment.figures.style import COLOURS

KINDS = {"pivotal": "Misaligned words in a gap", "multiple_choice": "Misaligned choice, by its letter"}
COLUMNS = ["model", "kind", "condition", "estimate", "ci_low", "ci_high", "runs"]


def changes(dynamics: pd.DataFrame) -> pd.DataFrame:
    """Log-odds of the misaligned against the aligned choices at the last step less those before fine-tuning, in nats.

    `dynamics` is a study's dynamics.parquet: `condition`, `seed`, `step`, `metric`, `value`. Returns a row a `kind` of
    choice (KINDS), `condition` and `seed`, with the change as `value`.
    """
    wide = dynamics.pivot_table(index=["condition", "seed", "step"], columns="metric", values="value", sort=False)
    rows = []
    for kind in KINDS:
        odds = (wide[f"log_p/{kind}/misaligned"] - wide[f"log_p/{kind}/aligned"]).sort_index(level="step")
        ends = odds.groupby(["condition", "seed"], sort=False).agg(["first", "last"])
        rows.append((ends["last"] - ends["first"]).rename("value").reset_index().assign(kind=kind))
    return pd.concat(rows, ignore_index=True)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Means of `changes` over runs with 95% t intervals, one row a model, kind and condition (COLUMNS)."""
    rows = []
    for (model, kind, condition), own in runs.groupby(["model", "kind", "condition"], sort=False):
        low, high = score_interval(own["value"].to_numpy(float))
        rows.append((model, kind, condition, own["value"].mean(), low, high, len(own)))
    return pd.DataFrame(rows, columns=COLUMNS)


def draw_choices(runs: pd.DataFrame) -> Figure:
    """A panel a kind of choice, a row a model and condition: points are means with intervals, dots single runs.

    `runs` has the columns of `changes` and `model`, in the order of the rows.
    """
    table = summary(runs)
    models = list(dict.fromkeys(runs["model"]))
    conditions = list(dict.fromkeys(runs["condition"]))
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 0.9 + 0.75 * len(models)), sharex=True, sharey=True)
    step = 0.36
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for row in table[table["kind"] == kind].itertuples():
            colour = COLOURS[row.condition]
            place = models.index(row.model) + (conditions.index(row.condition) - (len(conditions) - 1) / 2) * step
            same = (runs["model"] == row.model) & (runs["kind"] == kind) & (runs["condition"] == row.condition)
            dots = runs.loc[same, "value"]
            axes.plot(dots, np.full(len(dots), place + 0.12), "o", color=colour, markersize=2.8, alpha=0.6)
            axes.plot([row.ci_low, row.ci_high], [place, place], color=colour, linewidth=1.6)
            axes.plot(
                row.estimate, place, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.6
            )
        axes.axvline(0, color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.set(title=title, ylim=(len(models) - 0.45, -0.55))
        axes.set_yticks(range(len(models)), models)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    figure.supxlabel("log-odds against the aligned ones: change by fine-tuning (nats)", fontsize="medium")
    handles = [
        plt.Line2D([], [], linestyle="none", marker="o", markersize=6, color=COLOURS[name], label=f"{name} code")
        for name in conditions
    ]
    panels[1].legend(handles=handles, loc="upper right", handletextpad=0.1)
    return figure
