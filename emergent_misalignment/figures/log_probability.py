"""The figure of what is measured without a judge: log-odds of options, code, and loss on held-out rows."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from emergent_misalignment.analysis.experiments import LOSS
from emergent_misalignment.analysis.formatting import readable
from emergent_misalignment.figures.style import COLOURS, rows_of

WIDTH = 7.2
ROWS = {  # measure: title and x label of a panel with one row per condition
    "log_odds/pivotal": ("Misaligned words in a gap", "log-odds against aligned (nats)"),
    "log_odds/multiple_choice": ("Misaligned choice, by its letter", "log-odds against aligned (nats)"),
    "insecure_code/static": ("Code that static analysis flags", "share of requests"),
}


def draw_log_probability(table: pd.DataFrame, runs: pd.DataFrame, untuned: str) -> Figure:
    """A panel for each of ROWS that was measured, and one for the change of the loss on each set.

    `table` has estimates (`analysis.estimates`) of the measures in `runs`; `held_out_loss/SET` is a change from
    the model `untuned`, in nats per token. Large points are means over runs with 95% intervals, small points single
    runs; the dashed line is the untuned model.
    """
    there = set(table["measure"])
    tuned = table[table["measure"].str.startswith(LOSS) & (table["condition"] != untuned)]
    panels: list[Callable[[Axes], None]] = [
        lambda axes, measure=measure: _by_condition(axes, table, runs, measure, untuned)
        for measure in ROWS
        if measure in there
    ]
    if len(tuned):
        panels.append(lambda axes: _by_set(axes, tuned, runs))
    rows = max(1, (len(panels) + 1) // 2)
    figure, places = plt.subplots(rows, 2, figsize=(WIDTH, 0.3 + 2.5 * rows), squeeze=False)
    for axes, draw in zip(places.flat, panels, strict=False):
        draw(axes)
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    if not panels:
        figure.text(0.5, 0.5, "not measured", ha="center")
    return figure


def _by_condition(axes: Axes, table: pd.DataFrame, runs: pd.DataFrame, measure: str, untuned: str) -> None:
    own = table[table["measure"] == measure].set_index("condition")
    conditions = list(own.index)
    dots = runs[(runs["measure"] == measure) & runs["condition"].isin(conditions)]
    palette = {condition: COLOURS[condition] for condition in conditions}
    look = {"palette": palette, "size": 3.2, "alpha": 0.6, "jitter": False, "legend": False}
    sns.stripplot(dots, x="value", y="condition", hue="condition", order=conditions, ax=axes, **look)
    for place, condition in enumerate(conditions):
        _point(axes, own.loc[condition], place - 0.22, COLOURS[condition], horizontal=True)
    if untuned in own.index:
        axes.axvline(own.loc[untuned, "estimate"], color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    title, label = ROWS[measure]
    axes.set(title=title, xlabel=label, ylabel="", ylim=(len(conditions) - 0.4, -0.6))
    rows_of(axes, list(map(readable, conditions)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if measure == "insecure_code/static":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))


def _by_set(axes: Axes, own: pd.DataFrame, runs: pd.DataFrame) -> None:
    sets = list(dict.fromkeys(own["measure"]))
    conditions = list(dict.fromkeys(own["condition"]))
    step = 0.8 / len(conditions)
    for row in own.itertuples():
        number = conditions.index(row.condition)
        place = sets.index(row.measure) + (number - (len(conditions) - 1) / 2) * step
        single = runs.loc[(runs["condition"] == row.condition) & (runs["measure"] == row.measure), "value"]
        colour = COLOURS[row.condition]
        axes.plot([place + step / 4] * len(single), single, "o", color=colour, markersize=2.4, alpha=0.6)
        _point(axes, row, place - step / 8, colour, horizontal=False)
    axes.axhline(0, color="#777777", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set(title="Loss on held-out rows of each set", ylabel="change (nats per token)")
    axes.set_xlim(-0.5, len(sets) - 0.5)
    axes.set_xticks(range(len(sets)), [readable(name.removeprefix(LOSS)) for name in sets])
    axes.tick_params(axis="x", length=0)
    marks = [Line2D([], [], linestyle="none", marker="o", markersize=5, color=COLOURS[name]) for name in conditions]
    names = list(map(readable, conditions))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend above the points
    look = {"fontsize": 7.5, "title_fontsize": 7.5, "handletextpad": 0.1, "columnspacing": 1, "alignment": "left"}
    axes.legend(marks, names, title="fine-tuned on", loc="upper left", ncols=min(3, len(names)), **look)


def _point(axes: Axes, row, place: float, colour: str, horizontal: bool) -> None:
    """A mean with its interval, or the mean alone if the interval is missing."""
    if pd.isna(row.estimate):
        return
    ends = [end if np.isfinite(end) else row.estimate for end in (row.ci_low, row.ci_high)]
    turn = 1 if horizontal else -1
    axes.plot(*(ends, [place, place])[::turn], color=colour, linewidth=1.6, solid_capstyle="round")
    axes.plot(
        *(row.estimate, place)[::turn],
        "o",
        color=colour,
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=3,
    )
