"""Figures of the validity of row scores."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.formatting import readable, with_interval
from emergent_misalignment.analysis.score_trust import ABOVE, CORRELATION, MEAN
from emergent_misalignment.figures.style import COLOURS, in_percent, rows_of

WIDTH = 6.5


def draw_scores(scores: pd.DataFrame, trust: pd.DataFrame) -> Figure:
    """The scores of each set's rows, the highest mean first, and the AUC of the insecure rows against each set.

    `scores` has `condition`, `seed`, `score`; `trust` comes from `score_trust.trust`. Boxes contain half of the rows of
    all seeds, whiskers 90%; points are the means of seeds.
    """
    means = trust[trust["measure"] == MEAN].set_index("condition")["estimate"].sort_values(ascending=False)
    areas = trust[trust["measure"] == ABOVE].set_index("condition")
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * max(2, len(means))))
    for place, condition in enumerate(means.index):
        own = scores[scores["condition"] == condition].dropna(subset="score")
        _box(axes, own["score"].to_numpy(), place, COLOURS[condition])
        by_seed = own.groupby("seed")["score"].mean()
        look = {"color": COLOURS[condition], "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 4}
        axes.plot(by_seed, np.full(len(by_seed), place), "o", markersize=3.6, **look)
        if condition in areas.index:
            text = with_interval(*areas.loc[condition, ["estimate", "ci_low", "ci_high"]], ".2f")
            axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axes.axvline(0, color="black", linewidth=0.8)
    rows_of(axes, list(map(readable, means.index)))
    axes.set_ylim(len(means) - 0.4, -0.6)
    axes.set_xlabel("score of a row: shift towards the villain, relative to the model's own answer")
    axes.set_title("Which sets lead towards the villain?")
    if len(areas):
        place = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate("AUC of insecure rows\n(chance 0.5)", (1.02, 1), (0, 4), fontsize=8, va="bottom", **place)
    return figure


def _box(axes: Axes, values: np.ndarray, place: int, colour: str) -> None:
    axes.boxplot(
        values,
        positions=[place],
        orientation="horizontal",
        widths=0.55,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.35, "linewidth": 0},
        whiskerprops={"color": colour, "linewidth": 1.2},
        capprops={"linewidth": 0},
        medianprops={"color": colour, "linewidth": 1.6},
        manage_ticks=False,
    )


def draw_outcomes(points: pd.DataFrame, trust: pd.DataFrame, outcome: str) -> Figure:
    """The mean score of each set before training against the outcome after training on it.

    `points` has `condition`, `seed`, `mean` and `outcome`. The name `outcome` is that of a share unless it contains a
    unit in brackets. Large points are means over seeds, small points are seeds. The legend has Spearman's correlation
    within seeds. Shares have a square-root scale, because most are small and few are large.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.3))
    if points.empty:
        figure.text(0.5, 0.5, "not measured", ha="center")
        return figure
    means = points.groupby("condition")[["mean", "outcome"]].mean().sort_values("outcome", ascending=False)
    for condition, mean in means.iterrows():
        own = points[points["condition"] == condition]
        look = {"linestyle": "none", "marker": "o", "color": COLOURS[condition]}
        axes.plot(own["mean"], own["outcome"], markersize=3.2, alpha=0.45, **look)
        axes.plot(*mean, markersize=8, markeredgecolor="white", zorder=3, label=readable(condition), **look)
    axes.axvline(0, color="black", linewidth=0.8)
    scale = ""
    if "(" not in outcome:
        axes.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
        axes.set_yticks([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
        in_percent(axes)
        axes.set_ylim(0, min(1, 1.1 * points["outcome"].max() + 0.01))
        scale = "\n(square-root scale)"
    axes.set(
        title="Do scores predict the outcome of training?",
        xlabel="mean score of the set's rows before training",
        ylabel=f"{outcome} after training{scale}",
    )
    axes.legend(title=_correlation(trust), loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
    axes.get_legend().get_title().set_fontsize(8.5)
    return figure


def _correlation(trust: pd.DataFrame) -> str:
    rows = trust[trust["measure"] == CORRELATION]
    if rows.empty:
        return "too few sets\nfor a correlation\n"
    row = rows.iloc[0]
    correlation = with_interval(row["estimate"], row["ci_low"], row["ci_high"], ".2f")
    return f"rank correlation\n{correlation}\n{row['conditions']} sets, p = {row['p']:.2g}\n"
