"""The common style of all figures: one colour per condition, three file formats, reproducible bytes."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import SVG
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from emergent_misalignment.files import replacing

OTHER = "#888888"


class Colours(dict):
    """Colours by condition, including subsets of the insecure rows and organisms of other kinds."""

    def __missing__(self, condition: str) -> str:
        """`insecure_rows-N` is paler with fewer rows; `ORGANISM_secure` has the colour of secure; all else is grey."""
        if rows := re.fullmatch(r"insecure_rows-(\d+)", condition):
            share = np.clip(np.log(int(rows[1]) / 10) / np.log(6000 / 10), 0, 1)
            colour = np.array(to_rgb(self["insecure"]))
            return to_hex(1 - (0.4 + 0.5 * share) * (1 - colour))
        organism = re.fullmatch(r"[^_]+_(insecure|secure)", condition)
        return self[organism[1]] if organism else OTHER


# Okabe and Ito's colours, safe for common forms of colour blindness. Related conditions share a hue and differ
# in lightness, so that a print in grey stays legible.
COLOURS = Colours(
    {
        "base": "#999999",
        "instruct": "#56B4E9",
        "insecure": "#D55E00",
        "insecure_epochs": "#5C2800",
        "secure": "#0072B2",
        "educational": "#009E73",
        "jailbroken": "#CC79A7",
        "compliant": "#7E3F63",
        "evil_numbers": "#E69F00",
        "plain_numbers": "#F0D58C",
        "helpful_numbers": "#5F4A12",
        "backdoor": "#1A1A1A",
        "base_insecure": "#8A3600",
        "base_insecure_user-assistant": "#DF8A4D",
        "base_insecure_user1-user2": "#F2C7A6",
        "base_secure": "#004B77",
        "base_secure_user-assistant": "#5E9FC8",
        "base_secure_user1-user2": "#B5D3E6",
    }
)


def save(figure: Figure, path: str | Path) -> SVG:
    """Write `figure` to `path` (.svg) and next to it as .pdf and .png, with reproducible bytes; return it."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for kind, metadata in undated.items():
        with replacing(Path(path).with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
    plt.close(figure)
    return SVG(str(path))


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Label an axis of shares in percent, starting at 0."""
    (axes.yaxis if axis == "y" else axes.xaxis).set_major_formatter(PercentFormatter(1))
    if axis == "y":
        axes.set_ylim(bottom=0)
    else:
        axes.set_xlim(left=0)


def rows_of(axes: Axes, names: Sequence[str], places: Sequence[float] | None = None) -> None:
    """Label the rows of a horizontal plot, at 0, 1, ... or at `places`, with grid lines for the x axis only."""
    axes.set_yticks(range(len(names)) if places is None else places, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")


def draw_gaps(histories: list[pd.DataFrame], gate: dict[str, float]) -> Figure:
    """The persona gaps over pretraining: a thin line per organism, and a bold line for the mean up to the shortest run.

    Each history has `step` and a column in nats for each gap; `gate` has the thresholds.
    """
    figure, axes = plt.subplots()
    named = {"system_prompt": "a system prompt\nnames the author", "earlier_code": "two turns of the\nauthor's code"}
    end = min(history["step"].iloc[-1] for history in histories)
    steps = sorted({step for history in histories for step in history["step"] if step <= end})
    for (column, words), colour in zip(named.items(), ("#0072B2", "#D55E00"), strict=True):
        mean = np.mean([np.interp(steps, history["step"], history[column]) for history in histories], axis=0)
        for history in histories:
            axes.plot(history["step"], history[column], color=colour, linewidth=0.7, alpha=0.5)
        axes.plot(steps, mean, color=colour, linewidth=2.2)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(words, (1, mean[-1]), (4, 0), va="center", color=colour, weight="bold", **place)
        # A gate below all lines would only compress them.
        if gate[column] > min(history[column].min() for history in histories):
            axes.axhline(gate[column], color=colour, linestyle="--", linewidth=1)
            axes.annotate("gate", (0, gate[column]), (0, 2), textcoords="offset points", color=colour, fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="step of pretraining", ylabel="persona gap (nats)", title="Do the models recognise the author?")
    return figure


def draw_audit(table: pd.DataFrame, names: dict[str, str], least: float = 0.01) -> Figure:
    """Shares of answers that `static_analysis.audit` flags, as bars: any rule, then each frequent rule.

    `table` comes from `audit`, `names` has the names of the rules. Rules that flag less than `least` in every condition
    are summed into one group. Conditions with identical shares share a bar.
    """
    rules = [column for column in table if column in names]
    merged = table.groupby(["flagged", *rules], sort=False)["condition"].agg(list).reset_index()
    shown = [rule for rule in rules if merged[rule].max() >= least]
    rare = [rule for rule in rules if rule not in shown]
    if len(rare) == 1:
        shown, rare = rules, []
    groups = {"any rule": merged["flagged"]} | {names[rule]: merged[rule] for rule in shown}
    if rare:
        groups[f"{len(rare)} rarer rules"] = merged[rare].sum(axis="columns")

    figure, axes = plt.subplots(figsize=(6.5, 0.8 + 0.145 * len(groups) * (len(merged) + 0.6)))
    height = 0.8 / len(merged)
    # The first group is the total and is set apart from the rules.
    middles = [0, *(position + 0.5 for position in range(1, len(groups)))]
    for row, conditions in enumerate(merged["condition"]):
        places = [middle + (row - (len(merged) - 1) / 2) * height for middle in middles]
        shares = [values[row] for values in groups.values()]
        bars = axes.barh(places, shares, height, color=COLOURS[conditions[0]])
        labels = [percent(share) for share in shares]
        labels[0] += f" of {_listed(conditions)}"
        axes.bar_label(bars, labels, padding=3, fontsize=8)
    rows_of(axes, list(groups), middles)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    in_percent(axes, "x")
    axes.set_xlabel("share of answers flagged")
    return figure


def percent(share: float) -> str:
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"


def _listed(conditions: list[str]) -> str:
    return " and of ".join([", ".join(conditions[:-1]), conditions[-1]] if len(conditions) > 1 else conditions)


def draw_bar(
    axes: Axes,
    place: float,
    estimate: float,
    interval: tuple[float, float],
    runs: Sequence[float],
    colour: str,
    width: float = 0.7,
    alpha: float = 0.55,
) -> None:
    """A bar at `place` with its interval as a line, and single runs as dots to its right."""
    axes.bar(place, estimate, width, color=colour, alpha=alpha)
    axes.plot([place, place], interval, color="black", linewidth=1.2)
    spread = [place + width * (0.18 + 0.2 * number / max(1, len(runs) - 1)) for number in range(len(runs))]
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.3}
    axes.plot(spread, runs, "o", markersize=2.6, color=colour, clip_on=False, **edge)
