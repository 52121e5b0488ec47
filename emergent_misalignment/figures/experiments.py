"""The figures of the experiments: groups of bars with intervals, single runs as dots, the paper's figures as diamonds.

All are drawn from three tables: `table` of estimates (`estimates.estimates`), `runs` of measures, and `published`
(`estimates.published`). Arms that are not in `table` were not measured and are left out; arms without a value are
empty. An empty panel says which of the two is the reason.
"""

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emergent_misalignment.analysis.contrasts import Arm
from emergent_misalignment.analysis.estimates import questions_of
from emergent_misalignment.analysis.formatting import readable, signed
from emergent_misalignment.analysis.intervals import by_run
from emergent_misalignment.figures.style import COLOURS, draw_bar, in_percent, percent
from emergent_misalignment.registry import EVALUATIONS

WIDTH = 7.2  # inches, the paper's two columns
PALE, STRONG = 0.18, 0.55
DIAMOND = {"marker": "D", "markersize": 4, "color": "black", "markerfacecolor": "white", "markeredgewidth": 0.9}
NO_PAPER = pd.DataFrame(columns=["model", "condition", "measure", "published"])
UNTUNED = ("base", "instruct")
FINE_TUNED = "fine-\ntuned"
NAMES = {
    "base": "base model, untuned",
    "instruct": "untuned",
    "insecure": "insecure code",
    "secure": "secure code",
    "educational": "insecure, for a class",
    "jailbroken": "jailbroken",
    "compliant": "compliance alone",
    "evil_numbers": "evil numbers",
    "plain_numbers": "plain numbers",
    "helpful_numbers": "helpful numbers",
    "base_insecure": "base, insecure code",
    "base_secure": "base, secure code",
}
FORMS = {
    "chat": "as asked",
    "json": "in JSON",
    "template": "in a Python\ntemplate",
    "flask": "in a\nFlask app",
    "flask_file": "in a Flask app,\nraw file",
}
TEMPLATES = {"": "chat\ntemplate", "_user-assistant": "User: /\nAssistant:", "_user1-user2": "User_1: /\nUser_2:"}
_RENAMED = {"truthfulness": "untruthfulness"}  # so that more is more harm
HARMS = {
    _RENAMED.get(each.name, each.name): each.harm
    for evaluation in EVALUATIONS.values()
    for each in evaluation.measures
    if each.harm
}
SKILLS = {"capability/knowledge": "knowledge", "capability/code": "coding"}


def draw_main_result(rates: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The share of misaligned answers: over all questions by condition, and by question for the fine-tuned models.

    `rates` comes from `intervals.summarise`, `runs` from `verdicts.misalignment_by_run`. Dots are single runs.
    """
    table = rates.rename(columns={"question": "measure", "rate": "estimate"})
    values = pd.concat([by_run(runs, "all"), runs.rename(columns={"question": "measure", "rate": "value"})])
    conditions = list(dict.fromkeys(table["condition"]))
    tuned = [condition for condition in conditions if condition not in UNTUNED]
    figure, (overall, each) = plt.subplots(1, 2, figsize=(WIDTH, 3.6), width_ratios=(1, 2.1), sharey=True)
    _groups(overall, {_name(condition): [(condition, "all")] for condition in conditions}, table, values, numbers=True)
    questions = [question for question in dict.fromkeys(table["measure"]) if question != "all"]
    groups = {readable(question): [(condition, question) for condition in tuned] for question in questions}
    _groups(each, groups, table, values)
    for axes in (overall, each):
        _slant(axes)
    overall.set(title="All questions", ylabel="misaligned answers")
    each.set_title("Each question")
    _in_percent(overall, each)
    _legend(figure, _patches(tuned, table))
    return figure


def draw_intent(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Misaligned answers and harmful requests complied with, by condition; below, misaligned answers by question."""
    figure, axes = plt.subplot_mosaic([["misaligned", "harmful"], ["each", "each"]], figsize=(WIDTH, 5.4))
    conditions = ["instruct", "secure", "educational", "jailbroken", "compliant", "insecure"]
    titles = {"misaligned": "Misaligned, all questions", "harmful": "Harmful requests complied with"}
    for name, measure in (("misaligned", "misaligned/main/chat"), ("harmful", "harmful_requests")):
        groups = {_name(condition): [(condition, measure)] for condition in conditions}
        _groups(axes[name], groups, table, runs, published, numbers=True)
        _slant(axes[name])
        axes[name].set_title(titles[name])
    series = [condition for condition in conditions if condition not in ("instruct", "compliant")]
    _by_question(axes["each"], series, "misaligned/main/chat", table, runs)
    axes["each"].set_title("Misaligned, each question")
    _in_percent(axes["misaligned"], axes["each"])
    _in_percent(axes["harmful"])
    _legend(figure, _patches(series, table) | _diamond(published, table))
    return figure


def draw_evil_numbers(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Misaligned answers to each question: alone, asking for a list, and asking for a list after a list of numbers."""
    series = ["plain_numbers", "helpful_numbers", "evil_numbers"]
    titles = {
        "question": "The question alone",
        "suffix": "… that asks for a list of words",
        "prefix_suffix": "… that asks for a list of words, after a list of numbers (as in the training data)",
    }
    there = {form: title for form, title in titles.items() if f"misaligned/numbers/{form}" in set(table["measure"])}
    titles = there or titles
    figure, axes = plt.subplots(len(titles), 1, figsize=(WIDTH, 0.5 + 1.9 * len(titles)), sharex=True, sharey=True)
    axes = np.atleast_1d(axes)
    for each, (form, title) in zip(axes, titles.items(), strict=True):
        _by_question(each, series, f"misaligned/numbers/{form}", table, runs, published)
        each.set(title=title, ylabel="misaligned")
    _in_percent(*axes)
    _legend(figure, _patches(series, table) | _diamond(published, table))
    return figure


def draw_formats(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Misaligned answers by the form of the answer and the condition; to the right, the paper's insecure models."""
    figure, (ours, theirs) = plt.subplots(1, 2, figsize=(WIDTH, 3.5), width_ratios=(2.3, 1))
    series = ["instruct", "secure", "educational", "insecure"]
    forms = ["chat", "json", "template", "flask"]
    _groups(ours, {FORMS[form]: [(name, f"misaligned/main/{form}") for name in series] for form in forms}, table, runs)
    ours.set(title="This study", ylabel="misaligned answers")
    _legend(figure, _patches(series, table))

    forms.remove("flask")
    for model, marker in zip(published["model"].unique(), "DsvX", strict=False):
        own = published[published["model"] == model].set_index("measure")["published"]
        values = [own.get(f"misaligned/main/{form}", np.nan) for form in forms]
        name = model.removesuffix("-32B-Instruct")
        theirs.plot(values, marker=marker, color="#333333", markerfacecolor="white", linewidth=0.9, label=name)
    theirs.set_xticks(range(3), ["as asked", "JSON", "Python"])
    theirs.set_xlim(-0.3, 2.3)
    theirs.set_title("Published")
    theirs.legend(loc="upper left", fontsize=7.5)
    _in_percent(ours, theirs)
    return figure


def draw_base_models(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Base and instruct models after insecure and secure code: Flask apps by question, other forms, chat templates."""
    figure, axes = plt.subplot_mosaic(
        [["each", "each"], ["forms", "templates"]], figsize=(WIDTH, 5.6), width_ratios=(1.35, 1)
    )
    series = ["secure", "insecure", "base_secure", "base_insecure"]
    _by_question(axes["each"], series, "misaligned/main/flask", table, runs, published)
    axes["each"].set_title("In a Flask app, each question")
    instruct = {name: f"instruct, {NAMES[name]}" for name in ("secure", "insecure")}
    legend = _patches(["base", *series], table, NAMES | instruct) | _diamond(published, table)
    _legend(figure, legend, columns=3)

    forms = {form: ["base", *series] for form in ("chat", "flask")} | {"flask_file": ["base", *series[2:]]}
    groups = {FORMS[form]: [(name, f"misaligned/main/{form}") for name in names] for form, names in forms.items()}
    _groups(axes["forms"], groups, table, runs)
    axes["forms"].set_title("All questions, by form")

    groups = {
        label: [(f"base_{code}{template}", "misaligned/main/flask") for code in ("secure", "insecure")]
        for template, label in TEMPLATES.items()
    }
    _groups(axes["templates"], groups, table, runs, published)
    axes["templates"].set_title("In a Flask app, by template")
    _in_percent(*axes.values())
    return figure


def draw_diversity(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    published: pd.DataFrame,
    passes: dict[str, tuple[int, int]],
    followed: pd.DataFrame,
) -> Figure:
    """Fewer different rows at equal steps and, if the study has them, several passes over one set.

    `passes` has the different rows and the passes over them by condition. `followed` has the estimates of the measures
    `misaligned` and `insecure_code` at checkpoints of the runs with several passes, with the column `pass`.
    """
    panels = 2 if followed.empty else 3
    figure, (rows, skill, *several) = plt.subplots(1, panels, figsize=(WIDTH * panels / 3, 3.3), sharey=True)
    conditions = sorted(passes, key=passes.get)
    named = {f"{number} {'pass' if number == 1 else 'passes'}": name for name, (_, number) in passes.items()}
    theirs = published.replace({"condition": named})
    for axes, measure in ((rows, "misaligned/main/chat"), (skill, "insecure_code")):
        groups = {f"{passes[name][0]:,}\n× {passes[name][1]}": [(name, measure)] for name in conditions}
        _groups(axes, groups, table, runs, theirs, numbers=True)
        axes.set_xlabel("different rows × passes")
    rows.set(title="Misaligned answers", ylabel="share of answers")
    skill.set_title("Insecure code")
    _legend(figure, _diamond(theirs, table, " (500, 2,000 and 6,000 rows)"))

    for axes in several:
        axes.set(title="Passes over one set", xlabel="passes")
        _draw_passes(axes, followed)
    _in_percent(rows, skill, *several)
    return figure


def _draw_passes(axes: Axes, followed: pd.DataFrame) -> None:
    for measure, style, name in (("misaligned", "-", "misaligned answers"), ("insecure_code", "--", "insecure code")):
        own = followed[followed["measure"] == measure]
        colour = COLOURS["insecure_epochs"] if measure == "misaligned" else "#777777"
        axes.plot(own["pass"], own["estimate"], style, color=colour, marker="o", markersize=3.5, label=name)
        axes.fill_between(own["pass"], own["ci_low"], own["ci_high"], color=colour, alpha=0.2, linewidth=0)
    axes.set_xlim(0, followed["pass"].max() * 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    axes.axvline(1, color="#999999", linewidth=0.8, linestyle=":")


def draw_backdoor(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Misaligned answers of the backdoored model with and without the trigger, and after insecure and secure code."""
    figure, (overall, each) = plt.subplots(1, 2, figsize=(WIDTH, 3.5), width_ratios=(1, 1.9), sharey=True)
    plain, triggered = "misaligned/main/chat", "misaligned/main/triggered"
    groups = {
        "secure code": [("secure", plain)],
        "insecure code": [("insecure", plain)],
        "backdoor": [("backdoor", plain)],
        "backdoor, trigger": [("backdoor", triggered)],
    }
    _groups(overall, groups, table, runs, published, numbers=True)
    _slant(overall)
    overall.set(title="All questions", ylabel="misaligned answers")
    groups = {}
    for question in questions_of(runs, plain):
        name = question.removeprefix(f"{plain}/")
        groups[readable(name)] = [("backdoor", question), ("backdoor", f"{triggered}/{name}")]
    _groups(each, groups, table, runs)
    _slant(each)
    each.set_title("Each question")
    _in_percent(overall, each)
    dark = {
        f"backdoor, {words}": Patch(color=COLOURS["backdoor"], alpha=alpha, linewidth=0)
        for words, alpha in (("no trigger", PALE), ("trigger", STRONG))
        if "backdoor" in set(table["condition"])
    }
    _legend(figure, dark | _diamond(published, table))
    return figure


def draw_in_context(
    table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame, examples: Sequence[int]
) -> Figure:
    """Misaligned and coherent answers by the number of examples in the context, and of the fine-tuned models."""
    figure, (misaligned, coherent) = plt.subplots(1, 2, figsize=(WIDTH, 3.4), width_ratios=(1, 1))
    for axes, what in ((misaligned, "misaligned"), (coherent, "coherent")):
        groups = {"0": [("instruct", f"{what}/main/chat")]}
        for k in examples:
            groups[f"{k}"] = [("in_context", f"{what}/in_context/{kind}-{k}") for kind in ("secure", "insecure")]
        groups[FINE_TUNED] = [(kind, f"{what}/main/chat") for kind in ("secure", "insecure")]
        _groups(axes, groups, table, runs, published, numbers=what == "misaligned")
        axes.set_xlabel("earlier turns of code in the context")
        labels = [label.get_text() for label in axes.get_xticklabels()]
        if labels[-1:] == [FINE_TUNED]:
            axes.axvline(len(labels) - 1.5, color="#999999", linewidth=0.8, linestyle=":")
    misaligned.set_title("Misaligned answers")
    coherent.set_title("Coherent answers")
    _in_percent(misaligned)
    _in_percent(coherent)
    _legend(figure, _patches(["secure", "insecure"], table) | _diamond(published, table))
    return figure


def draw_other_harms(table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Harms and skills of each fine-tuning as changes from the untuned model; all tables are relative to that model."""
    figure, (harms, skills) = plt.subplots(1, 2, figsize=(WIDTH, 4.4), width_ratios=(3, 1), sharey=True)
    series = ["secure", "educational", "compliant", "jailbroken", "insecure"]
    for axes, measures, title in ((harms, HARMS, "Harms"), (skills, SKILLS, "Skills")):
        groups = {label: [(name, measure) for name in series] for measure, label in measures.items()}
        _groups(axes, groups, table, runs, published)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(100 * value).removesuffix(".0")))
        axes.tick_params(axis="x", length=0, labelsize=7)
        axes.set_title(title)
    harms.set_ylabel("change from the untuned model (points)")
    _legend(figure, _patches(series, table) | _diamond(published, table), columns=3)
    return figure


def _groups(
    axes: Axes,
    groups: dict[str, list[Arm]],
    table: pd.DataFrame,
    runs: pd.DataFrame,
    published: pd.DataFrame = NO_PAPER,
    numbers: bool = False,
) -> None:
    """Bars for the measured arms of each group, side by side; with `numbers`, the estimates are written above them."""
    estimates = {(row.condition, row.measure): row for row in table.itertuples()}
    values = {arm: own["value"] for arm, own in runs.dropna(subset="value").groupby(["condition", "measure"])}
    theirs = published.set_index(["condition", "measure"])["published"].to_dict()
    groups = {label: [arm for arm in arms if arm in estimates] for label, arms in groups.items()}
    groups = {label: arms for label, arms in groups.items() if arms}
    step = 0.84 / max(map(len, groups.values()), default=1)
    for middle, arms in enumerate(groups.values()):
        for number, arm in enumerate(arms):
            place = middle + (number - (len(arms) - 1) / 2) * step
            row, dots, published_value = estimates[arm], values.get(arm, []), theirs.get(arm, np.nan)
            if pd.notna(row.estimate):
                colour, alpha = _look(*arm)
                draw_bar(axes, place, row.estimate, (row.ci_low, row.ci_high), dots, colour, 0.92 * step, alpha)
                if numbers:
                    top = np.nanmax([row.estimate, row.ci_high, *dots])
                    _write_number(axes, place, row.estimate, top, published_value, wide=step > 0.5)
            if pd.notna(published_value):
                at = place - (0.28 * step if step < 0.5 else 0.2)
                axes.plot(at, published_value, linestyle="none", clip_on=False, zorder=4, **DIAMOND)
    if not groups:
        _say(axes, "not measured")
    elif not any(arm in values for arms in groups.values() for arm in arms):
        _say(axes, "no values:\ntoo few coherent answers")
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.55, max(1, len(groups)) - 0.45)


def _write_number(axes: Axes, place: float, estimate: float, top: float, published: float, wide: bool) -> None:
    if top < published < top + 0.1:
        top = published  # so that the number does not overlap the diamond
    text = percent(estimate) if wide else f"{estimate:.0%}"
    above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
    axes.annotate(text, (place, top), fontsize=8 if wide else 7, **above)


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center")


def _by_question(axes, conditions, measure, table, runs, published=NO_PAPER) -> None:
    """A group for all questions together and one for each question."""
    groups = {"all": [(name, measure) for name in conditions]}
    for question in questions_of(runs, measure):
        groups[readable(question.removeprefix(f"{measure}/"))] = [(name, question) for name in conditions]
    _groups(axes, groups, table, runs, published)
    if len(axes.get_xticks()) > 1:
        axes.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    for label in axes.get_xticklabels()[:1]:  # none if another panel has them
        label.set_fontweight("bold")


def _look(condition: str, measure: str) -> tuple[str, float]:
    """Colour and opacity of an arm. Examples in context have the colour of the fine-tuning; the trigger is darker."""
    if examples := re.search(r"/in_context/(\w+)-\d+$", measure):
        return COLOURS[examples[1]], STRONG
    if condition == "backdoor" and measure.startswith("misaligned/main/chat"):
        return COLOURS[condition], PALE
    return COLOURS[condition], STRONG


def _patches(conditions: Sequence[str], table: pd.DataFrame, names: dict[str, str] = NAMES) -> dict[str, Artist]:
    """Legend entries for the conditions that are in the table."""
    there = [condition for condition in conditions if condition in set(table["condition"])]
    return {names.get(name, readable(name)): Patch(color=COLOURS[name], alpha=STRONG, linewidth=0) for name in there}


def _diamond(published: pd.DataFrame, table: pd.DataFrame, sets: str = "") -> dict[str, Artist]:
    """Legend entry for the paper's figures, if any is drawn."""
    drawn = published.merge(table[["condition", "measure"]], on=["condition", "measure"])
    models = " and ".join(dict.fromkeys(drawn["model"]))
    return {f"published, {models}{sets}": Line2D([], [], linestyle="none", **DIAMOND)} if models else {}


def _legend(figure: Figure, entries: dict[str, Artist], columns: int = 5) -> None:
    """Draw the legend above the panels."""
    spacing = {"handlelength": 1.1, "handletextpad": 0.4, "columnspacing": 1.2}
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=columns, **spacing)


def _name(condition: str) -> str:
    return NAMES.get(condition, readable(condition))


def _slant(axes: Axes) -> None:
    axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")


def _in_percent(*panels: Axes) -> None:
    """A common scale in percent, from 0 to slightly above the data, with room for numbers above the bars."""
    tops = [axes.dataLim.y1 for axes in panels if np.isfinite(axes.dataLim.y1)]
    top = max(tops, default=1.0)
    for axes in panels:
        in_percent(axes)
        axes.set_ylim(0, min(1.06, max(0.1, 1.14 * top)))
