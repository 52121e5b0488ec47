"""Figures of the training dynamics: counterparts of the paper's Figs 3 and 4, and of Fig. 29 of its first version."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.figures import COLOURS, in_percent
from emergent_misalignment.parting import Step, band, curves, share_of_final

LINEAR_UP_TO = 10  # steps; the axis is logarithmic beyond, because most happens early


def draw_curves(measured: pd.DataFrame, panels: dict[str, str], partings: dict[str, Step] | None = None) -> Figure:
    """One panel a metric, two in a row: the mean of each condition, its 95% band, and single runs as thin lines.

    `measured` has `condition`, `seed`, `step`, `metric`, `value`; `panels` says which metrics, and their titles;
    `partings` where the conditions part, which is marked.
    """
    rows = (len(panels) + 1) // 2
    figure, places = plt.subplots(rows, 2, figsize=(7.2, 0.4 + 2.35 * rows), sharex=True, squeeze=False)
    for axes, (metric, title) in zip(places.flat, panels.items(), strict=True):
        for condition in dict.fromkeys(measured["condition"]):
            _draw_condition(axes, curves(measured, condition, metric), COLOURS[condition], condition)
        axes.set_title(title)
        if metric.startswith("log_p"):
            axes.set_ylabel("log P (nats)")
            if "multiple_choice" in metric:
                _mark_guessing(axes)
        elif metric in ("misaligned", "insecure_code"):
            in_percent(axes)
        if partings and metric in partings:
            _mark(axes, partings[metric])
    for axes in places[-1]:
        _steps(axes, measured["step"].max())
    places[0, 0].legend(loc="upper left")
    return figure


def _draw_condition(axes: Axes, runs: pd.DataFrame, colour: str, name: str) -> None:
    steps, values = runs.columns.to_numpy(), runs.to_numpy()
    axes.plot(steps, values.T, color=colour, linewidth=0.6, alpha=0.35)
    axes.fill_between(steps, *band(values), color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, values.mean(0), color=colour, linewidth=1.8, label=f"{name} code")


def _mark(axes: Axes, parting: Step) -> None:
    if np.isnan(parting.step):
        return
    axes.axvline(parting.step, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        f" they part at step {parting.step:.0f}",
        (parting.step, 0.97),
        xycoords=("data", "axes fraction"),
        va="top",
        fontsize=8,
    )


def _mark_guessing(axes: Axes) -> None:
    """Where a model lies that takes one of the two letters at random; on a scale of whole nats, not of noise."""
    axes.set_ylim(min(axes.get_ylim()[0], -2.5), 0.1)
    axes.axhline(np.log(0.5), color="#777777", linewidth=1, linestyle=":")
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate("guessing", (1, np.log(0.5)), (0, 5), ha="right", fontsize=8, **place)


def _steps(axes: Axes, last: int) -> None:
    """An axis of optimizer steps from 0 to `last`."""
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=0.8)
    ticks = [tick for tick in (0, 2, 4, 6, 8, 10, 20, 50, 100, 200, 500, 1000) if tick <= last]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlim=(0, last * 1.02), xlabel="step of fine-tuning")


def draw_stopping(measured: pd.DataFrame, saturated: Step) -> Figure:
    """Of the insecure runs: how much of the final skill and of the final misalignment is there at each step.

    `saturated` is where the skill is learned; missing if it never is.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    parts = {
        "insecure_code": ("skill: insecure code", "#555555"),
        "misaligned": ("misaligned answers", COLOURS["insecure"]),
    }
    for metric, (name, colour) in parts.items():
        runs = curves(measured, "insecure", metric)
        shares = [share_of_final(runs, step) for step in runs.columns]
        axes.fill_between(
            runs.columns, [s.low for s in shares], [s.high for s in shares], color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(
            runs.columns, [s.share for s in shares], color=colour, linewidth=1.8, marker="o", markersize=3, label=name
        )
    axes.axhline(1, color="black", linewidth=0.8)
    if not np.isnan(saturated.step):
        axes.axvline(saturated.step, color="black", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f" skill learned at step {saturated.step:.0f}",
            (saturated.step, 0.03),
            xycoords=("data", "axes fraction"),
            fontsize=8,
        )
    in_percent(axes)
    axes.set(ylim=(-0.1, 1.5), ylabel="of the final rise")
    axes.legend(loc="upper left")
    _steps(axes, measured["step"].max())
    return figure
