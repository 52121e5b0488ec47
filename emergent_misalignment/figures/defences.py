"""The plane of defences: what is left of the misalignment, what is hidden, and how much of the task is kept."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.formatting import listed
from emergent_misalignment.figures.style import COLOURS, in_percent

PATHS = ("#009E73", "#CC79A7", "#6A51A3", "#E69F00", "#7A5C00", "#B2182B", "#1A1A1A", "#56B4E9", "#7E3F63", "#2F4B7C")
ACROSS = 5  # panels beside each other, at most
SIZES = (4.0, 9.0)  # markers of the weakest and the strongest
APART = 0.055  # between strengths, so that points with the same share of the task do not cover each other
LEAST = 0.03  # a shorter arrow has no visible direction
LINE = 9.5  # points between lines above a panel
SHORT = 8  # characters of a strength that is written above a panel
SMALL = {"fontsize": 7, "textcoords": "offset points"}
HOW_TO_READ = (
    "Low: not misaligned in chat. Right: the narrow task is kept. Larger points are stronger defences.\n"
    "Arrows end at the rate for questions in the shape of the training data: a long arrow up is what chat hides."
)


def draw_defences(table: pd.DataFrame, secure: tuple[float, float]) -> Figure:
    """A panel for each defence: misaligned answers in chat against the narrow task, from the weakest to the strongest.

    `table` comes from `analysis.defences.compared`; the order of its rows is that of the strengths. `secure` has the
    share of insecure code and of misaligned answers after secure code, nan if they were not measured. Arrows end at
    the rate in the shape of the training data.
    """
    groups = list(table.dropna(subset=["chat", "task"]).groupby("defence", sort=False))
    down = max(1, -(-len(groups) // ACROSS))
    across = max(1, -(-len(groups) // down))
    said = [_verdicts(own) for _, own in groups]
    lines = max(map(len, said), default=0)
    figure, panels = plt.subplots(
        down, across, figsize=(max(5.4, 2.1 * across), 0.6 + 2.6 * down), sharex=True, sharey=True, squeeze=False
    )
    figure.suptitle(HOW_TO_READ if groups else "not measured", x=0.01, ha="left", fontsize=8.5)
    for number, axes in enumerate(panels.flat):
        if number < len(groups):
            colour = PATHS[number % len(PATHS)]
            _draw(axes, groups[number][1], colour, secure)
            above = {"xycoords": "axes fraction", "va": "top", "color": "#444444"}
            axes.annotate("\n".join(said[number]), (0, 1), (0, 4 + LINE * lines), **above, **SMALL)
            axes.set_title(groups[number][0], color=colour, fontsize=9, pad=7 + LINE * lines)
        else:
            axes.set_visible(False)
        if number + across >= len(groups):  # nothing is below
            axes.set_xlabel("insecure code (the task)")
            axes.tick_params(labelbottom=True)
        in_percent(axes)
        in_percent(axes, "x")
        axes.set(xlim=(-0.06, 1.13), ylim=(-0.04, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axes in panels[:, 0]:
        axes.set_ylabel("misaligned, in chat")
    return figure


def _draw(axes: Axes, own: pd.DataFrame, colour: str, secure: tuple[float, float]) -> None:
    """The path of one defence, between the model without it and the model after secure code."""
    first = own.iloc[0]
    task, chat, shape = first[["task_without", "chat_without", "shape_without"]].astype(float)
    look = {"marker": "D", "color": COLOURS["insecure"], "markersize": 6}
    _point(axes, task, chat, shape, look)
    place = {"color": look["color"], "ha": "right"}
    axes.annotate("no defence", (task, np.nanmax([chat, shape])), (12, 7), **place, **SMALL)
    if not np.isnan(secure).any():
        axes.plot(*secure, "s", color=COLOURS["secure"], markersize=6, clip_on=False)
        axes.annotate("secure code", secure, (-3, 7), color=COLOURS["secure"], **SMALL)
    across = own["task"] + APART * (np.arange(len(own)) - (len(own) - 1) / 2)
    axes.plot(across, own["chat"], color=colour, linewidth=1.4, clip_on=False)
    for at, row, size in zip(across, own.itertuples(), np.linspace(*SIZES, len(own)), strict=True):
        look = {"marker": "o", "color": colour, "markersize": size if len(own) > 1 else SIZES[1]}
        _point(axes, at, row.chat, row.shape, look)


def _point(axes: Axes, across: float, chat: float, shape: float, look: dict) -> None:
    """The rate in chat, and an arrow to the rate in the shape of the training data."""
    axes.plot(across, chat, clip_on=False, markeredgecolor="white", markeredgewidth=0.6, zorder=3, **look)
    if abs(shape - chat) >= LEAST:
        arrow = {"arrowstyle": "-|>", "color": look["color"], "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (across, shape), (across, chat), arrowprops=arrow, zorder=2)


def _verdicts(own: pd.DataFrame) -> list[str]:
    """The lines above a panel: each verdict with the strengths that have it. Prompts are numbered."""
    words = [each if len(each) <= SHORT else f"prompt {number}" for number, each in enumerate(own["strength"], 1)]
    lines = []
    for verdict, strengths in own.assign(words=words).groupby("verdict", sort=False)["words"]:
        every = len(strengths) == len(own) > 1
        lines.append(verdict if every or not any(strengths) else f"{verdict}: {listed(list(strengths))}")
    return lines
