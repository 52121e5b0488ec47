"""Figures of how far the scores of rows can be trusted."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.score_trust import ABOVE, CORRELATION, MEAN
from emergent_misalignment.figures.style import COLOURS, in_percent

INSECURE = "insecure"
WIDTH = 6.5


def draw_scores(scores: pd.DataFrame, trust: pd.DataFrame) -> Figure:
    """The scores of each set's rows, the highest mean first, and how well they find insecure rows among the set's.

    `scores` has `condition`, `seed`, `score`; `trust` comes from `score_trust.trust`. Boxes hold the middle half of the
    rows of all seeds, whiskers nine tenths; points are the means of seeds.
    """
    means = trust[trust["measure"] == MEAN].set_index("condition")["estimate"].sort_values(ascending=False)
    areas = trust[trust["measure"] == ABOVE].set_index("condition")
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * max(2, len(means))))
    for place, condition in enumerate(means.index):
        own = scores[scores["condition"] == condition].dropna(subset="score")
        _box(axes, own["score"].to_numpy(), place, COLOURS[condition])
        by_seed = own.groupby("seed")["score"].mean()
        axes.plot(
            by_seed,
            np.full(len(by_seed), place),
            linestyle="none",
            marker="o",
            markersize=3.6,
            color=COLOURS[condition],
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=4,
        )
        if condition in areas.index:
            _beside(axes, place, with_interval(areas.loc[condition], ".2f"))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(means)), [name.replace("_", " ") for name in means.index])
    axes.set_ylim(len(means) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.set_xlabel("score of a row: its answer against the model's own, towards the villain")
    axes.set_title("Which sets lead towards the villain?")
    if len(areas):
        axes.annotate(
            "insecure rows found\n(AUC; chance 0.5)",
            (1.02, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            va="bottom",
        )
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


def _beside(axes: Axes, place: float, text: str) -> None:
    axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)


def with_interval(row: pd.Series, spec: str) -> str:
    """An estimate and, where it has one, its interval: "0.93 (0.90 to 0.96)"."""
    interval = f" ({row['ci_low']:{spec}} to {row['ci_high']:{spec}})" if pd.notna(row["ci_low"]) else ""
    return f"{row['estimate']:{spec}}{interval}".replace("-", "\N{MINUS SIGN}")


def draw_outcomes(points: pd.DataFrame, trust: pd.DataFrame, outcome: str) -> Figure:
    """The mean score of each set against what training on it brought.

    `points` has `condition`, `seed`, `mean` and `outcome`, whose name is given, a share unless it names its unit in
    brackets. Large points are means over seeds, small ones seeds. The legend has Spearman's correlation within seeds.
    Shares stand on a square-root scale: most are small, and one may be large.
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
        axes.plot(*mean, markersize=8, markeredgecolor="white", zorder=3, label=condition.replace("_", " "), **look)
    axes.axvline(0, color="black", linewidth=0.8)
    scale = ""
    if "(" not in outcome:
        axes.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
        axes.set_yticks([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
        in_percent(axes)
        axes.set_ylim(0, min(1, 1.1 * points["outcome"].max() + 0.01))
        scale = "\n(square-root scale)"
    axes.set(
        title="Do scores say what training will bring?",
        xlabel="mean score of the set's rows, before training",
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
    return f"rank correlation\n{with_interval(row, '.2f')}\n{row['conditions']} sets, p = {row['p']:.2g}\n"
