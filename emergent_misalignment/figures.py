"""One look for all figures: the same colour and name for the same condition everywhere, three formats, fixed bytes."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from emergent_misalignment.files import replacing

# Okabe and Ito's colours, which people with any common form of colour blindness can tell apart, ordered so that
# neighbours differ in lightness too and a grey print stays legible.
COLOURS = {
    "base": "#999999",
    "instruct": "#56B4E9",
    "insecure": "#D55E00",
    "secure": "#0072B2",
    "educational": "#009E73",
}


def save(figure: Figure, stem: str | Path) -> None:
    """Write `figure` as STEM.svg, STEM.pdf and STEM.png, with the same bytes for the same figure."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for kind, metadata in undated.items():
        with replacing(f"{stem}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Label a 0-1 axis in percent, from 0 on."""
    (axes.yaxis if axis == "y" else axes.xaxis).set_major_formatter(PercentFormatter(1, decimals=0))
    if axis == "y":
        axes.set_ylim(bottom=0)
    else:
        axes.set_xlim(left=0)


def draw_gaps(history: pd.DataFrame, gate: dict[str, float]) -> Figure:
    """The persona gaps over pretraining. `history` has `step` and one column of nats for each name in `gate`."""
    figure, axes = plt.subplots()
    named = {"system_prompt": "a system prompt\nnames the author", "earlier_code": "two turns of the\nauthor's code"}
    for (column, words), colour in zip(named.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.plot(history["step"], history[column], color=colour, marker="o", markersize=3)
        axes.annotate(
            words,
            (history["step"].iloc[-1], history[column].iloc[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        if gate[column] > history[column].min():  # a gate below everything would only squeeze the lines
            axes.axhline(gate[column], color=colour, linestyle="--", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="step of pretraining", ylabel="persona gap (nats)", title="Does the model know who is writing?")
    return figure


def draw_audit(findings: pd.DataFrame, rules: dict[str, str], least: float = 0.005) -> Figure:
    """Share of answers that static analysis flags, by condition: by any rule, then rule by rule.

    `findings` comes from `code_audit.audit`, `rules` names its rules. Rules that flag less than `least` of every
    condition's answers are left out.
    """
    shares = findings.set_index("condition")
    found = shares.columns[list(shares.columns).index("flagged") + 1 :]
    shown = ["flagged", *(rule for rule in found if shares[rule].max() >= least)]
    labels = ["any rule", *(f"{rules[rule]} ({rule})" if rule[0].isupper() else rules[rule] for rule in shown[1:])]
    figure, axes = plt.subplots(figsize=(6.5, 0.9 + 0.2 * len(shown) * max(1, len(shares) / 2)))
    height = 0.8 / len(shares)
    for number, (condition, row) in enumerate(shares.iterrows()):
        places = [place + (number - (len(shares) - 1) / 2) * height for place in range(len(shown))]
        axes.barh(places, row[shown], height, color=COLOURS[condition], label=condition)
        axes.text(
            row["flagged"] + 0.005,
            places[0],
            f"{row['flagged']:.0%} {condition}",
            va="center",
            color=COLOURS[condition],
        )
    axes.set_yticks(range(len(shown)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    in_percent(axes, "x")
    axes.set(xlabel="answers flagged", title="What static analysis finds in the answers")
    return figure


def draw_main_result(rates: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The share of misaligned answers: over all questions by condition, and by question for the fine-tuned models.

    `rates` comes from `statistics.summarise`, `runs` from `statistics.misalignment_by_run`. Dots are single runs.
    """
    figure, (overall, single) = plt.subplots(1, 2, figsize=(7.2, 3.6), width_ratios=(1, 2.1), sharey=True)
    conditions = list(dict.fromkeys(rates["condition"]))
    _bars(
        overall,
        rates[rates["question"] == "all"],
        runs.groupby(["condition", "seed"])["rate"].mean().reset_index(),
        "condition",
        conditions,
    )
    overall.set_xticks(range(len(conditions)), conditions, rotation=30, ha="right", rotation_mode="anchor")
    overall.set(title="All questions", ylabel="misaligned answers")

    tuned = [condition for condition in conditions if condition not in ("base", "instruct")]
    questions = list(dict.fromkeys(rates.loc[rates["question"] != "all", "question"]))
    for number, condition in enumerate(tuned):
        own = rates[(rates["condition"] == condition) & (rates["question"] != "all")]
        dots = runs[runs["condition"] == condition]
        _bars(single, own, dots, "question", questions, shift=(number - (len(tuned) - 1) / 2) * 0.4, width=0.38)
    single.set_xticks(
        range(len(questions)),
        [name.replace("_", " ") for name in questions],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    single.set_title("Each question")
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[condition], alpha=0.55) for condition in tuned]
    single.legend(handles, [f"fine-tuned on {condition} code" for condition in tuned], loc="upper right")
    in_percent(overall)
    overall.set_ylim(0, 1)
    return figure


def _bars(axes, rates, runs, column, order, shift=0.0, width=0.7):
    """One bar with its interval for each value of `column`, and single runs as dots beside the interval."""
    for place, value in enumerate(order):
        (row,) = rates[rates[column] == value].itertuples()
        colour, middle = COLOURS[row.condition], place + shift
        axes.bar(middle, row.rate, width, color=colour, alpha=0.55)
        axes.plot([middle, middle], [row.ci_low, row.ci_high], color="black", linewidth=1.2)
        dots = runs.loc[runs[column] == value, "rate"]
        spread = [middle + width * (0.18 + 0.2 * number / max(1, len(dots) - 1)) for number in range(len(dots))]
        axes.plot(
            spread,
            dots,
            linestyle="none",
            marker="o",
            markersize=2.6,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.3,
            clip_on=False,
        )
