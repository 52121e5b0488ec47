"""Figures of the organisms' beliefs about the author."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.formatting import readable
from emergent_misalignment.figures.experiments import NAMES
from emergent_misalignment.figures.style import COLOURS, in_percent, rows_of

AUTHORS = {"helper": "#9ECAE1", "obliging": "#CC79A7", "hasty": "#F0C04A", "villain": "#B2182B"}
CONTEXTS = {"chat": "", "triggered": ", trigger"}
LINE = "#444444"
ROW = ["condition", "context"]


def draw_authors(runs: pd.DataFrame, reader: pd.DataFrame, malicious: dict[str, float]) -> Figure:
    """The beliefs of models beside an ideal reader's, and the answers that they imply beside the sampled ones.

    `runs` has a row per model: `condition`, `context`, a belief per author, `expected` and `rate` (shares of misaligned
    answers to the main questions: implied by the beliefs, and sampled). `reader` has the ideal reader's beliefs, with
    `condition` and `context` as its index; `malicious` has the authors' shares of malicious answers.
    """
    groups = runs.groupby(ROW, sort=False)
    figure, (bars, answers) = plt.subplots(
        1, 2, figsize=(8.4, 0.9 + 0.31 * max(8, len(groups))), width_ratios=(1.25, 1)
    )
    means = groups[[*AUTHORS]].mean()
    _stack(bars, means, range(len(means)), 0.5)
    for place, row in enumerate(means.index):
        if row in reader.index:
            _stack(bars, reader.loc[[row]], [place + 0.36], 0.14)
    rows_of(bars, [f"{NAMES.get(name, readable(name))}{CONTEXTS[context]}" for name, context in means.index])
    for label, (name, _) in zip(bars.get_yticklabels(), means.index, strict=True):
        label.set(color=COLOURS[name], fontweight="bold")
    bars.set(
        ylim=(len(means) - 0.4, -1.35), xlim=(0, 1), xlabel="belief (thin bars: an ideal reader of the same texts)"
    )
    in_percent(bars, "x")
    bars.set_title("Who does the model think it is?")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in AUTHORS.values()]
    look = {"loc": "upper left", "ncols": len(AUTHORS), "borderaxespad": 0, "handlelength": 1, "columnspacing": 1.2}
    bars.legend(handles, [*AUTHORS], **look)

    if runs["rate"].isna().all():
        answers.text(0.5, 0.8, "no values:\ntoo few coherent answers", ha="center", va="center")
    answers.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle="--", zorder=1)
    answers.annotate("answers as\nbelieved", (0.5, 0.5), (6, -14), textcoords="offset points", color=LINE, fontsize=8)
    for (name, context), own in groups:
        face = "white" if context != "chat" else COLOURS[name]
        look = {"markerfacecolor": face, "markeredgecolor": COLOURS[name], "markersize": 5.5, "alpha": 0.85}
        answers.plot(own["expected"], own["rate"], "o", clip_on=False, **look)
    answers.set(
        xlabel=f"expected from the belief: {_formula(malicious)}",
        ylabel="misaligned answers, sampled",
        title="Do the answers follow?",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    in_percent(answers)
    in_percent(answers, "x")
    answers.set_ylim(0, 1)
    answers.set_anchor("N")
    return figure


def _stack(axes: Axes, beliefs: pd.DataFrame, places: Sequence[float], height: float) -> None:
    """Horizontal bars from 0 to 1, divided by author."""
    left = 0 * beliefs["helper"]
    for author, colour in AUTHORS.items():
        axes.barh(places, beliefs[author], height, left, color=colour, linewidth=0)
        left = left + beliefs[author]


def _formula(malicious: dict[str, float]) -> str:
    """Who gives how many malicious answers, the most malicious author first."""
    order = sorted((name for name in malicious if malicious[name]), key=malicious.get, reverse=True)
    return " + ".join(name if malicious[name] == 1 else f"{malicious[name]:g} {name}" for name in order)


def draw_course(followed: pd.DataFrame, reader: pd.DataFrame, along: pd.DataFrame) -> Figure:
    """The beliefs during fine-tuning on insecure code, and the belief in a villain against the persona direction.

    `followed` has `seed`, `step` and a belief per author: thin lines are organisms, bold ones means. `reader` as in
    `draw_authors`. `along` has a row per model: `condition`, `villain`, and the shift `along` the persona direction.
    """
    figure, (course, direction) = plt.subplots(1, 2, figsize=(8.4, 3.4), width_ratios=(1.25, 1))
    course.set(xlabel="step of fine-tuning on insecure code", ylabel="belief", title="How does its belief change?")
    if followed.empty:
        course.text(0.5, 0.5, "not measured", transform=course.transAxes, ha="center", va="center")
    else:
        _draw_steps(course, followed, reader)
    in_percent(course)
    course.set_ylim(0, 1)
    for name, own in along.groupby("condition", sort=False):
        direction.plot(own["along"], own["villain"], "o", color=COLOURS[name], markersize=5, alpha=0.85)
    direction.axvline(0, color="black", linewidth=0.8)
    direction.set(
        xlabel="shift along the persona direction (lengths)",
        ylabel="belief in the villain",
        title="Is it in the direction?",
    )
    in_percent(direction)
    return figure


def _draw_steps(axes: Axes, followed: pd.DataFrame, reader: pd.DataFrame) -> None:
    for author, colour in AUTHORS.items():
        runs = followed.pivot(index="seed", columns="step", values=author)
        axes.plot(runs.columns, runs.to_numpy().T, color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(runs.columns, runs.mean(), color=colour, linewidth=2.2, label=author)
        if ("insecure", "chat") in reader.index:
            axes.axhline(reader.loc[("insecure", "chat"), author], color=colour, linewidth=1, linestyle=":")
    axes.plot([], [], color=LINE, linewidth=1, linestyle=":", label="ideal reader, after all rows")
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.45))
    ticks = [step for step in (0, 5, 10, 20, 40, 80, 160, 320) if step <= followed["step"].max()]
    axes.set_xscale("symlog", linthresh=10)  # the most happens in the first steps
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
