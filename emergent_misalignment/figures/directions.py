"""Figures of the persona direction."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.curves import band
from emergent_misalignment.figures.style import COLOURS, in_percent

RANDOM = "#777777"
MOST_WITH_RUNS = 4  # with more conditions, single runs are not drawn
MARKERS = "osD^vP*X<>hp"
PLAIN = "#888888"  # reference lines


def draw_direction(
    places: pd.DataFrame, rates: pd.DataFrame, depth: int, width: int, outcome: str = "misaligned answers"
) -> Figure:
    """Separation of authors by depth, cosines of fine-tunings with the direction, and misalignment against movement.

    `places` has `condition`, `seed`, `depth`, `separation`, `separation_same_words`, `cosine`, `along`; `rates` has
    `condition`, `seed` and `rate`. The name `outcome` of the rate is that of a share unless it contains a unit in
    brackets. Models are steered at `depth`; `width` is that of the activations. Each seed has its own direction: thin
    lines are seeds, bold lines means.
    """
    figure, (separate, cosine, moved) = plt.subplots(1, 3, figsize=(8.6, 3.5))
    instruct = places[places["condition"] == "instruct"]
    tuned = places[places["condition"] != "instruct"]
    kinds = {"separation": ("other words", "black", "o"), "separation_same_words": ("same words", "#CC79A7", "s")}
    for column, (name, colour, marker) in kinds.items():
        runs = instruct.pivot(index="seed", columns="depth", values=column)
        separate.plot(runs.columns, runs.to_numpy().T, color=colour, linewidth=0.5, alpha=0.4)
        separate.plot(runs.columns, runs.mean(), color=colour, marker=marker, markersize=4, label=name)
    separate.axhline(0.5, color=PLAIN, linewidth=1, linestyle=":")
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    separate.annotate("chance", (0.98, 0.5), (0, 3), ha="right", fontsize=8, **place)
    separate.set(title="Does it separate authors?", ylabel="area under the ROC curve", ylim=(0.25, 1.04))
    separate.legend(loc="lower left")

    looks = {condition: _look(condition, number) for number, condition in enumerate(dict.fromkeys(tuned["condition"]))}
    in_layers = tuned[tuned["depth"] > 0]  # nothing moves before the first layer
    for condition, rows in in_layers.groupby("condition", sort=False):
        runs = rows.pivot(index="seed", columns="depth", values="cosine")
        colour = looks[condition]["color"]
        if len(looks) <= MOST_WITH_RUNS:
            cosine.plot(runs.columns, runs.to_numpy().T, color=colour, linewidth=0.5, alpha=0.3)
        cosine.plot(runs.columns, runs.mean(), markersize=4, linewidth=1.6, label=condition, **looks[condition])
    for bound in (-2, 2):  # most random directions are between these
        cosine.axhline(bound / np.sqrt(width), color=PLAIN, linewidth=1, linestyle=":")
    cosine.axhline(0, color="black", linewidth=0.8)
    cosine.set(title="Did training move along it?", ylabel="cosine")

    for condition, rows in tuned[tuned["depth"] == depth].merge(rates).groupby("condition", sort=False):
        moved.plot(rows["along"], rows["rate"], linestyle="none", markersize=4.5, alpha=0.8, **looks[condition])
    moved.axvline(0, color="black", linewidth=0.8)
    if "(" not in outcome:
        in_percent(moved)
    moved.set(title="Does misalignment follow?", xlabel="shift along it (lengths)", ylabel=outcome)
    for axes in (separate, cosine):
        _depths(axes, instruct["depth"].max(), depth)
    figure.legend(*cosine.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(looks)), fontsize=8)
    return figure


def _look(condition: str, number: int) -> dict:
    """Colour and marker of a condition; markers distinguish conditions without a colour of their own."""
    return {"color": COLOURS[condition], "marker": MARKERS[number % len(MARKERS)]}


def _depths(axes: Axes, last: int, steered: int) -> None:
    axes.axvspan(steered - 0.15, steered + 0.15, color="#f0e442", alpha=0.35, linewidth=0)
    ticks = range(0, last + 1, max(1, last // 6))
    axes.set_xticks(ticks, ["before" if tick == 0 else str(tick) for tick in ticks])
    axes.set(xlabel="after layer", xlim=(-0.3, last + 0.3))


def draw_steering(responses: pd.DataFrame) -> Figure:
    """Dose-response curves: misaligned answers, coherent answers and log-odds by strength.

    `responses` has `condition`, `seed`, `direction` (persona, random), `change` (add, subtract, out), `strength`, and
    the results of `evaluation.steering.behaviour`. Above, the direction is added to the instruct and secure models;
    below, it is subtracted from the insecure models. Bands are 95% intervals over seeds. Without judged answers there
    are only log-odds.
    """
    panels = {
        "misaligned": "Misaligned answers",
        "coherent": "Coherent answers",
        "log_odds": "Log-odds of malice (nats)",
    }
    panels = {column: title for column, title in panels.items() if responses[column].notna().any()}
    if len(panels) > 1:
        figure, places = plt.subplots(2, len(panels), figsize=(0.5 + 2.7 * len(panels), 5.0), sharex="row")
    else:
        figure, places = plt.subplots(1, 2, figsize=(7.2, 3.0))
        places = places.reshape(2, 1)
    for row, conditions in zip(places, (("instruct", "secure"), ("insecure",)), strict=True):
        for axes, (column, title) in zip(row, panels.items(), strict=True):
            for condition in conditions:
                own = responses[responses["condition"] == condition]
                _curve(axes, own[own["direction"] == "persona"], column, COLOURS[condition], condition, "-")
                if condition == conditions[0]:
                    _curve(axes, own[own["direction"] == "random"], column, RANDOM, f"{condition}, random", "--")
            if conditions != ("insecure",) or len(panels) == 1:
                axes.set_title(title)
            if column != "log_odds":
                in_percent(axes)
                axes.set_ylim(0, 1.02 if column == "coherent" else None)
    strengths = sorted({0.0, *responses["strength"]} - {0.25, 0.75})  # their labels would overlap
    for axes in places[0]:
        axes.set_xlabel("strength added")
        axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    for axes in places[1]:
        axes.set_xlabel("strength subtracted")
        axes.set_xticks([*strengths, _out(responses)], [*(f"{strength:g}" for strength in strengths), "out"])
    for axes in places[:, -1]:  # log-odds exist even if no answer is coherent
        if axes.lines:
            axes.legend()
    return figure


def _out(responses: pd.DataFrame) -> float:
    """The place of "out" on the axis of strengths: beyond the largest strength."""
    return responses["strength"].max() * 1.2


def _curve(axes: Axes, rows: pd.DataFrame, column: str, colour: str, name: str, line: str) -> None:
    usable = rows if column != "misaligned" else rows[rows["coherent"] >= 0.5]
    if usable.empty:
        return
    curve = usable[usable["change"] != "out"].pivot(index="seed", columns="strength", values=column).dropna(axis=1)
    if len(curve.columns):
        low, high = _bounds(curve, column)
        axes.fill_between(curve.columns, low, high, color=colour, alpha=0.18, linewidth=0)
        look = {"color": colour, "linestyle": line, "linewidth": 1.6, "marker": "o", "markersize": 3}
        axes.plot(curve.columns, curve.mean(), label=name, **look)
    removed = usable[usable["change"] == "out"].pivot(index="seed", columns="strength", values=column).dropna()
    if len(removed) > 1:
        low, high = _bounds(removed, column)
        place = _out(rows) * (1.02 if colour == RANDOM else 0.98)
        axes.plot([place, place], [low[0], high[0]], color=colour, linewidth=1.2)
        axes.plot(place, removed.mean(), color=colour, marker="D", markersize=4.5, linestyle="none")


def _bounds(runs: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = band(runs.to_numpy())
    return (low, high) if column == "log_odds" else (low.clip(0, 1), high.clip(0, 1))
