"""By how much fine-tuning changes the choices of several models, on one axis: organisms next to a real model."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emergent_misalignment.analysis.choices import summary
from emergent_misalignment.figures.style import COLOURS, rows_of

TITLES = {"pivotal": "Misaligned words in a gap", "multiple_choice": "Misaligned choice, by its letter"}


def draw_choices(runs: pd.DataFrame) -> Figure:
    """One panel per kind of choice, one row per model and condition: means with intervals, and single runs as dots.

    `runs` has the columns of `analysis.choices.changes` and `model`, in the order of the rows.
    """
    table = summary(runs)
    models = list(dict.fromkeys(runs["model"]))
    conditions = list(dict.fromkeys(runs["condition"]))
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 0.9 + 0.75 * len(models)), sharex=True, sharey=True)
    step = 0.36
    for axes, (kind, title) in zip(panels, TITLES.items(), strict=True):
        for row in table[table["kind"] == kind].itertuples():
            colour = COLOURS[row.condition]
            place = models.index(row.model) + (conditions.index(row.condition) - (len(conditions) - 1) / 2) * step
            same = (runs["model"] == row.model) & (runs["kind"] == kind) & (runs["condition"] == row.condition)
            dots = runs.loc[same, "value"]
            axes.plot(dots, np.full(len(dots), place + 0.12), "o", color=colour, markersize=2.8, alpha=0.6)
            axes.plot([row.ci_low, row.ci_high], [place, place], color=colour, linewidth=1.6)
            look = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
            axes.plot(row.estimate, place, "o", color=colour, **look)
        axes.axvline(0, color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.set(title=title, ylim=(len(models) - 0.45, -0.55))
        rows_of(axes, models)
    figure.supxlabel(
        "change of the log-odds of misaligned against aligned options by fine-tuning (nats)", fontsize="medium"
    )
    handles = [
        plt.Line2D([], [], linestyle="none", marker="o", markersize=6, color=COLOURS[name], label=f"{name} code")
        for name in conditions
    ]
    panels[1].legend(handles=handles, loc="upper right", handletextpad=0.1)
    return figure
