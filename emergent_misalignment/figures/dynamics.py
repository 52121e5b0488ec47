"""Figures of the training dynamics: counterparts of the paper's Figs 3 and 4, and of Fig. 29 of its first version."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.curves import SKILLS, Step, band, curves, share_of_final, skill_metric
from emergent_misalignment.figures.style import COLOURS, in_percent

SHARES = ("misaligned", *SKILLS)
SKILL = "#555555"
LINEAR_UP_TO = 10  # steps; logarithmic beyond, because most changes happen early


def draw_curves(measured: pd.DataFrame, panels: dict[str, str], divergences: dict[str, Step] | None = None) -> Figure:
    """One panel per metric: the mean of each condition, its 95% band, and single runs as thin lines.

    `measured` has `condition`, `seed`, `step`, `metric`, `value`; `panels` maps metrics to titles; `divergences` are
    marked. Metrics that were not measured have no panel.
    """
    panels = {metric: title for metric, title in panels.items() if metric in set(measured["metric"])}
    rows = max(1, (len(panels) + 1) // 2)
    figure, places = plt.subplots(rows, 2, figsize=(7.2, 0.6 + 2.35 * rows), sharex=True, squeeze=False)
    last = measured["step"].max()
    for axes, (metric, title) in zip(places.flat, panels.items(), strict=False):
        for condition in dict.fromkeys(measured["condition"]):
            _draw_condition(axes, curves(measured, condition, metric), COLOURS[condition], f"{condition} code")
        axes.set_title(title)
        if metric.startswith("log_p"):
            axes.set_ylabel("log P (nats)")
        elif metric in SHARES:
            in_percent(axes)
        axes.set_ylim(*_with_headroom(axes, metric))
        if metric in SHARES:
            axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
        if "multiple_choice" in metric:
            _mark_guessing(axes)
        if divergences and metric in divergences:
            _mark(axes, divergences[metric].step, "diverge at step {:.0f}", last)
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    if not panels:
        figure.text(0.5, 0.5, "not measured", ha="center")
        return figure
    for axes in places[-1]:
        _steps(axes, last)
    if rows > 1 and len(panels) % 2:  # no panel is below this one
        _steps(places[-2, 1], last)
        places[-2, 1].tick_params(labelbottom=True)
    figure.legend(*places[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _with_headroom(axes: Axes, metric: str) -> tuple[float, float]:
    """Limits of the y axis with room for words above the curves; non-negative metrics start at 0."""
    low, high = axes.get_ylim()
    if not metric.startswith("log_p"):
        low = 0
    if "multiple_choice" in metric:  # so that noise does not fill the panel
        low, high = min(low, -2), 0
    return low, high + 0.14 * (high - low)


def _draw_condition(axes: Axes, runs: pd.DataFrame, colour: str, name: str) -> None:
    if runs.empty:
        return
    steps, values = runs.columns.to_numpy(), runs.to_numpy()
    axes.plot(steps, values.T, color=colour, linewidth=0.6, alpha=0.35)
    axes.fill_between(steps, *band(values), color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, values.mean(0), color=colour, linewidth=1.8, label=name)


def _mark(axes: Axes, step: float, words: str, last: int) -> None:
    """A line at an estimated step, if there is one, with words on the side with more room."""
    if np.isnan(step):
        return
    axes.axvline(step, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
    late = step > last / 5  # about the middle of the axis
    axes.annotate(
        words.format(step),
        (step, 0.985),
        (-4 if late else 4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=8,
    )


def _mark_guessing(axes: Axes) -> None:
    """Mark the value of a model that takes one of the two options at random."""
    axes.axhline(np.log(0.5), color="#777777", linewidth=1, linestyle=":")
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate("guessing", (0.98, np.log(0.5)), (0, 4), ha="right", fontsize=8, **place)


def _steps(axes: Axes, last: int) -> None:
    """An axis of optimizer steps from 0 to `last`."""
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=0.8)
    ticks = [tick for tick in (0, 2, 4, 6, 8, 10, 20, 50, 100, 200, 500, 1000) if tick <= last]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlim=(0, last * 1.02), xlabel="step of fine-tuning")


def draw_stopping(measured: pd.DataFrame, saturated: Step) -> Figure:
    """The share of the final skill and of the final misalignment of insecure runs that is reached at each step.

    `saturated` is the step at which the skill is learned. Misalignment is the share of misaligned answers or, without
    judged answers, the log-probability of the misaligned words in a gap.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.3))
    judged = "misaligned" in set(measured["metric"])
    parts = {
        skill_metric(measured): ("insecure code: the skill", SKILL),
        "misaligned" if judged else "log_p/pivotal/misaligned": (
            "misaligned answers" if judged else "log P of misaligned words",
            COLOURS["insecure"],
        ),
    }
    for metric, (name, colour) in parts.items():
        runs = curves(measured, "insecure", metric)
        if runs.empty:
            continue
        shares = [share_of_final(runs, step) for step in runs.columns]
        low, high = [share.low for share in shares], [share.high for share in shares]
        axes.fill_between(runs.columns, low, high, color=colour, alpha=0.18, linewidth=0)
        middle = [share.share for share in shares]
        axes.plot(runs.columns, middle, color=colour, linewidth=1.8, marker="o", markersize=3, label=name)
    axes.set(ylabel="share of the final rise", title="What does a model have if stopped at this step?")
    if not axes.lines:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
        return figure
    axes.axhline(1, color="black", linewidth=0.8)
    last = measured["step"].max()
    _mark(axes, saturated.step, "skill learned at step {:.0f}", last)
    in_percent(axes)
    axes.set_ylim(0, 1.35)
    axes.legend(loc="lower right")
    _steps(axes, last)
    return figure
