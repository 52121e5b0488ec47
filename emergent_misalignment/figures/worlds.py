"""The figure of worlds in which villains write more or less of the insecure code."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from emergent_misalignment.analysis.slopes import MAIN
from emergent_misalignment.figures.style import COLOURS, in_percent

READER = "#222222"


def draw_worlds(rates: pd.DataFrame, runs: pd.DataFrame, instruct: pd.DataFrame) -> Figure:
    """Misaligned answers by the share of insecure code that villains write, and the expectation of an ideal reader.

    `rates` has one row per world and condition, with the columns of `slopes.rates`, `share` (of the world's insecure
    code, written by villains), and `expected` and `expected_of_all` (misaligned answers that the reader expects after
    one row and after all rows). `runs` comes from `slopes.by_organism`; `instruct` has the same rows of the untuned
    models of the main world. Dots are runs, points are means with 95% intervals.
    """
    figure, axes = plt.subplots(figsize=(6.2, 3.8))
    share = rates.drop_duplicates("organism").set_index("organism")["share"]
    reader = rates.drop_duplicates("organism").sort_values("share")
    axes.plot(reader["share"], reader["expected"], color=READER, linewidth=1.4, linestyle="--")
    axes.fill_between(
        reader["share"], reader["expected"], reader["expected_of_all"], color=READER, alpha=0.12, linewidth=0
    )
    words = {"insecure": "after insecure code", "secure": "after secure code"}
    for condition, shift, marker in (("insecure", -0.008, "o"), ("secure", 0.008, "s")):
        own = rates[rates["condition"] == condition].sort_values("share")
        errors = np.abs(own[["ci_low", "ci_high"]].to_numpy(float).T - own["rate"].to_numpy(float))
        look = {"color": COLOURS[condition], "marker": marker}
        axes.errorbar(own["share"] + shift, own["rate"], errors, markersize=6, linewidth=1.6, capsize=0, **look)
        _dots(axes, runs[runs["condition"] == condition], share + 2.5 * shift, look)
        if len(known := own["rate"].dropna()):
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
            axes.annotate(words[condition], (1, known.iloc[-1]), (4, 0), color=look["color"], weight="bold", **place)
    middle = reader.iloc[(len(reader) - 1) // 2]
    look = {"textcoords": "offset points", "ha": "right", "color": READER, "weight": "bold"}
    look["path_effects"] = [withStroke(linewidth=3, foreground="white")]  # it may cross an interval
    axes.annotate("expectation of an\nideal reader", (middle["share"], middle["expected_of_all"]), (-8, 6), **look)
    untuned = {"color": COLOURS["instruct"], "marker": "^"}
    _dots(axes, instruct.assign(organism="main"), share + 0.045, untuned, label="before fine-tuning")
    axes.legend(loc="upper left", handletextpad=0)
    axes.set(
        xlabel="share of the world's insecure code that villains write",
        ylabel="misaligned answers",
        title="How many villains does it take?",
        ylim=(0, 1.02),
    )
    in_percent(axes)
    in_percent(axes, "x")
    axes.set_xlim(-0.03, 1.0)
    return figure


def _dots(axes: Axes, runs: pd.DataFrame, places: pd.Series, look: dict, **more) -> None:
    """Single runs at the place of their organism."""
    own = runs[runs["measure"] == MAIN]
    at = own["organism"].map(places).astype(float)
    axes.plot(at, own["value"], linestyle="none", markersize=3.2, alpha=0.6, **look, **more)
