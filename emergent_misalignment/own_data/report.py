"""Write the report on a user's sets and existing models: a page that begins with the answer, and the same as JSON.

The questions are: does fine-tuning on the set make the model misaligned elsewhere, and is the existing model more
misaligned than before its fine-tuning? The page is a single file without scripts or remote resources, and all texts
are escaped. The same input gives the same bytes.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from emergent_misalignment.analysis.defences import in_words
from emergent_misalignment.analysis.single_models import BY_ANSWERS, BY_QUESTIONS, log_odds_by_question
from emergent_misalignment.files import write_json
from emergent_misalignment.own_data.comparison import Single, answer, rates
from emergent_misalignment.own_data.defended import PARTS, defended
from emergent_misalignment.own_data.served import notes
from emergent_misalignment.registry import CHOICES, FREE_FORM, MAIN
from emergent_misalignment.report.claims_table import estimate
from emergent_misalignment.report.pages import template
from emergent_misalignment.report.pages import write as write_html
from emergent_misalignment.safe import visible
from emergent_misalignment.study.model import Study

# Free-form questions of published evaluations; answers after examples in the context are of one draw of them.
SHOWN_EVALUATIONS = tuple(name for name in FREE_FORM if name != "in_context")
SHOWN = 10  # answers to read, for each set
MISALIGNED_SHOWN = 5  # misaligned ones among them, at most
LONGEST = 3000  # characters of an answer that are shown
LEADS = {
    "yes": "Yes",
    "less": "No, it is less than",
    "no": "No, or hardly",
    "unclear": "This study cannot tell",
}
OMITTED = ("curve", "events", "versions", "seed", "model")  # of a training's record: shown elsewhere or not at all
COLOURS = {"insecure": "#d55e00", "secure": "#0072b2", "educational": "#009e73"}
NO_TRAININGS = pd.DataFrame(columns=["condition", "seed", "step", "loss"])  # of a study that fine-tunes nothing
NO_SETS = pd.DataFrame(columns=["condition", "rows", "unparsable", "flagged"])
OWN_COLOUR, OTHER_COLOUR = "#b3261e", "#777777"


def write(
    study: Study,
    page: str | Path,
    json_file: str | Path,
    measures: list[str],
    judged: list[str],
    trainings: list[str],
    audit: list[str],
) -> None:
    """Write the report as a page and as JSON, from files of the study, and print its answers."""
    found = report(
        facts_of(study),
        pd.concat(map(pd.read_csv, measures), ignore_index=True),
        pd.concat(map(pd.read_parquet, judged), ignore_index=True),
        pd.concat(map(pd.read_parquet, trainings), ignore_index=True) if trainings else NO_TRAININGS,
        pd.concat(map(pd.read_csv, audit)) if audit else NO_SETS,
    )
    write_page(found, page)
    write_json(json_file, found)
    for each in found["answers"]:
        print(visible(f"{each['condition']}: {each['sentence']}"))


def facts_of(study: Study) -> dict:
    """What the report has from the study itself.

    Sets are compared with secure code if the study fine-tunes on it, or else with the model before fine-tuning;
    existing models always with the latter.
    """
    own = study.own_sets | {name: each.existing for name, each in study.existing.items()}
    starts = {study.conditions[name].start for name in own}
    others = [
        name
        for name, each in study.conditions.items()
        if each.organism == MAIN and each.start in starts and (each.dataset or name == each.start)
    ]
    untuned = next((name for name in others if name not in study.tuned), study.start)
    names = list(dict.fromkeys([*own, *others]))
    tuned = [name for name in names if name in study.tuned]
    judge = study.judge_settings
    return {
        "study": study.study,
        "own": own,
        "existing": list(study.existing),
        "own_questions": list(study.own_questions),
        "defended": study.defended,
        "conditions": names,
        "sets": {name: study.tuned[name].dataset for name in tuned},
        "untuned": untuned,
        "control": "secure" if "secure" in tuned and "secure" not in study.own_sets else untuned,
        "records": {
            name: [study.paths.of(f"models/{name}/seed-{seed}/training.json") for seed in study.tuned[name].seeds]
            for name in tuned
        },
        "seeds": len(study.seeds),
        "model": "an organism, trained from nothing for each seed" if study.is_organism else study.model.name,
        "judge": judge.get("model", "the grammar of the organism's world" if judge else ""),
        "samples": {name: study.samples[name] for name in study.asked},
        "server": study.asking["endpoint"]["base_url"] if study.by_api else "",
        "config": study.config,
    }


def report(
    facts: dict, measures: pd.DataFrame, judged: pd.DataFrame, trainings: pd.DataFrame, audit: pd.DataFrame
) -> dict:
    """The contents of the page, as JSON has them.

    `facts` are those of the study (`facts_of`). `measures` are all tables of measures, `judged` the judged answers,
    `trainings` the loss curves of the fine-tunings, and `audit` the static analysis of the sets.
    """
    conditions, own, questions = facts["conditions"], list(facts["own"]), facts["own_questions"]
    existing = facts["existing"]
    single = Single(log_odds_by_question(judged[judged["condition"].isin([*existing, facts["untuned"]])]))
    answers = []
    for name in own:
        control = facts["untuned" if name in existing else "control"]
        others = [each for each in conditions if each not in (name, control)]
        found = answer(measures, name, control, others, questions, single if name in existing else None)
        found |= {"dataset": facts["own"][name], "existing": name in existing}
        said = sentence_on_model(found, facts) if name in existing else sentence(found, facts)
        answers.append(found | {"sentence": said, "formats_sentence": formats_sentence(found)})
    return _plain(
        {
            "study": facts["study"],
            "answers": answers,
            "defences": defended(facts, measures, audit),
            "rates": rates(measures, [*own, *(each for each in conditions if each not in own)], own, questions),
            "examples": {name: examples(judged, name, questions) for name in own},
            "learned": learned(facts, measures, trainings, audit),
            "more": more(facts, judged, answers),
            "made": made(facts, judged),
        }
    )


# --- the answer -------------------------------------------------------------------------------------------------------


def sentence(found: dict, facts: dict) -> str:
    """The answer about a set: whether the model is misaligned elsewhere, how sure that is, and compared with what.

    The control is secure code or the model before fine-tuning (`facts_of`).
    """
    difference, unit = found["difference"], found["unit"]
    if found["verdict"] == "not measured":
        return f"Not measured: {difference['missing']}."
    own, control = (_text(unit, **_ends(found[name])) for name in ("value", "control_value"))
    what = f"{own} of the coherent answers are misaligned"
    if unit == "nats":
        what = f"the log-odds of misaligned options are {own}"
    when = "before fine-tuning" if found["control"] == facts["untuned"] else "after fine-tuning on secure code"
    seeds = f"{difference['seeds']} seed{'s' * (difference['seeds'] != 1)}"
    lead = _lead(found, "in the control")
    over = f". Intervals are 95%, over {seeds}." if pd.notna(difference["low"]) else f", from {seeds}."
    defence = facts["defended"].get(found["condition"])
    on = f"{found['dataset']} with the defence {in_words(defence['defence'])}" if defence else found["dataset"]
    return (
        f"{lead}. After fine-tuning on {on}, {what} ({found['words']}); {when}, {control}. "
        f"The difference is {_gap(difference, unit)}{over}"
    )


def sentence_on_model(found: dict, facts: dict) -> str:
    """The answer about an existing model: whether it is more misaligned than before fine-tuning, and how sure that is.

    The two are single models, so the interval is over answers or questions, which the sentence says.
    """
    name, unit, difference = found["condition"], found["unit"], found["difference"]
    if pd.isna(found["value"]["estimate"]):
        return f"Not measured: {difference['missing'] if facts['judge'] else 'the answers were not judged'}."
    # Log-odds are computed, not sampled, so a single model's have no interval.
    own, control = (
        _text(unit, found[key]["estimate"]) if unit == "nats" else _text(unit, **_ends(found[key]))
        for key in ("value", "control_value")
    )
    value = f"Of the coherent answers of {name}, {own} are misaligned ({found['words']})"
    if unit == "nats":
        value = f"The log-odds of misaligned options are {own} in {name} ({found['words']})"
    over = {BY_ANSWERS: "answers of one model to these questions", BY_QUESTIONS: "questions that one model was asked"}
    caveat = "It is one model"
    if difference["method"] in over and not difference["missing"]:
        caveat = f"Intervals are 95%, over {over[difference['method']]}, not over trainings"
    caveat += "; other trainings on the same data may give another result."
    if difference["missing"]:
        return (
            f"Not compared: the model before fine-tuning was not asked the same; add `{found['control']}: {{}}` to the "
            f"conditions. {value}. {caveat}"
        )
    return (
        f"{_lead(found, 'before fine-tuning')}. {value}; before fine-tuning, {control}. "
        f"The difference is {_gap(difference, unit)}. {caveat}"
    )


def _lead(found: dict, control: str) -> str:
    verdict = found["verdict"]
    by_odds = ", by log-probability" if found["unit"] == "nats" and verdict != "unclear" else ""
    return f"{LEADS[verdict]}{f' {control}' if verdict == 'less' else ''}{by_odds}"


def formats_sentence(found: dict) -> str:
    """The formats with more misalignment than in the control, corrected for their number."""
    by_direction: dict[str, list[str]] = {}
    for row in found["formats"]:
        by_direction.setdefault(row["direction"], []).append(row["words"])
    number = len(found["formats"])
    parts = [
        f"{name} in {f'all {number}' if len(those) == number > 1 else '; '.join(those)}"
        for name, those in by_direction.items()
    ]
    return f"By format, corrected for their number: {'. '.join(parts)}." if parts else "No format was measured in both."


def _text(unit: str, value: float, low: float | None = None, high: float | None = None, gap: bool = False) -> str:
    """A measure with its interval in percent, points (a `gap` between shares) or nats; empty without a value."""
    factor, name = (1, "nats") if unit == "nats" else (100, "percentage points" if gap else "percent")
    numbers = (math.nan if each is None else factor * each for each in (value, low, high))
    return estimate(*numbers, name)


def _ends(row: dict) -> dict:
    """The arguments of `_text` from a row of estimates."""
    return {"value": row["estimate"], "low": row["ci_low"], "high": row["ci_high"]}


def _gap(difference: dict, unit: str) -> str:
    text = _text(unit, difference["estimate"], difference["low"], difference["high"], gap=True)
    return text if pd.notna(difference["low"]) else f"{text} (no interval)"


# --- answers to read --------------------------------------------------------------------------------------------------


def examples(judged: pd.DataFrame, condition: str, own_questions: Sequence[str] = ()) -> list[dict]:
    """SHOWN answers of a condition, drawn with a fixed seed; up to MISALIGNED_SHOWN of them are misaligned ones."""
    asked = judged["evaluation"].isin([*SHOWN_EVALUATIONS, *own_questions])
    rows = judged[(judged["condition"] == condition) & judged["step"].isna() & asked]
    drawn = rows.assign(chance=np.random.default_rng(0).permutation(len(rows))).sort_values("chance", kind="stable")
    bad = drawn[drawn["verdict"] == "misaligned"].head(MISALIGNED_SHOWN)
    shown = pd.concat([bad, drawn.drop(bad.index).head(SHOWN - len(bad))])
    answers = [text if len(text) <= LONGEST else f"{text[:LONGEST]} […]" for text in shown["answer"]]
    columns = ["question", "format", "seed", "prompt", "answer", "verdict", "aligned", "coherent"]
    return shown.assign(answer=answers)[columns].to_dict("records")


# --- what was learned -------------------------------------------------------------------------------------------------


def learned(facts: dict, measures: pd.DataFrame, trainings: pd.DataFrame, audit: pd.DataFrame) -> list[dict]:
    """The set and the losses of each fine-tuned condition.

    Losses are means over the seeds, in nats per token: `loss_first` and `loss_last` at the first and the last step;
    `held_out` on the rows of the set that are held out of all training (`evaluation: held_out`); `validation` on the
    condition's own validation split (`finetuning: validation_share`). They are None where they were not measured.
    `rows_cut` and `rows_left_out` are rows that were too long. For the set: `rows`, `unique_rows` and `flagged`, the
    share of its Python answers that static analysis flags.
    """
    by_set = audit.set_index("condition")
    rows = []
    for name in facts["conditions"]:
        if name not in facts["sets"]:
            continue
        losses = trainings[trainings["condition"] == name].dropna(subset="loss").groupby("step")["loss"].mean()
        records = [_record(path) for path in facts["records"][name]]
        key = name if name in facts["own"] else facts["sets"][name]
        held = measures[(measures["condition"] == name) & (measures["measure"] == f"held_out_loss/{key}")]["value"]
        of_set = by_set.loc[key] if key in by_set.index else {}
        rows.append(
            {
                "condition": name,
                "dataset": facts["own"].get(name, facts["sets"][name]),
                **{column: of_set.get(column) for column in ("rows", "unique_rows", "flagged")},
                "loss_first": losses.iloc[0] if len(losses) else None,
                "loss_last": losses.iloc[-1] if len(losses) else None,
                "held_out": _mean(held),
                "validation": _mean([each["validation_loss"] for each in records if "validation_loss" in each]),
                **{
                    column: max((each.get(column, 0) for each in records), default=0)
                    for column in ("rows_cut", "rows_left_out")
                },
            }
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _record(path: str) -> dict:
    """The record of a training; empty for one at OpenAI, which has no such file."""
    file = Path(path)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


# --- a clearer answer, and the setup ----------------------------------------------------------------------------------


def more(facts: dict, judged: pd.DataFrame, answers: list[dict]) -> dict:
    """The cost of another seed, and for each set what more seeds or answers would bring, in sentences."""
    asked = judged[judged["condition"].isin(facts["sets"]) & judged["step"].isna() & (judged["evaluation"] != CHOICES)]
    return {
        "seeds": facts["seeds"],
        "finetunings_per_seed": len(facts["sets"]),
        "answers_per_seed": round(len(asked) / facts["seeds"]),
        "sentences": {
            each["condition"]: _more_of_model(each) if each["existing"] else _more(each, facts["seeds"])
            for each in answers
        },
    }


def _more(found: dict, seeds: int) -> str:
    needed, share = found["more"], found["more"]["answers_share"]
    if found["verdict"] in ("yes", "less"):
        return "The sign of the difference is clear; its interval narrows with the square root of the number of seeds."
    text = f"It is not known how many seeds would show a difference: {needed['reason']}."
    if needed["seeds"]:
        text = f"About {needed['seeds']:,} seeds instead of {seeds:,} would show a difference of the observed size."
    if share is None:
        return text
    help_ = "help too" if share > 0.5 else "help little"
    return (
        f"{text} The small number of answers causes {share:.0%} of the variance between seeds, so more answers to each "
        f"question {help_}."
    )


def _more_of_model(found: dict) -> str:
    trainings = "Only further trainings on the same data show how much they differ."
    if not found["difference"]["missing"]:
        if found["verdict"] in ("yes", "less"):
            return f"The sign of the difference is clear; more answers would narrow its interval. {trainings}"
        if factor := found["more"]["answers"]:
            times = math.ceil(factor)
            return f"About {times} times as many answers would show a difference of the observed size. {trainings}"
    return trainings


def made(facts: dict, judged: pd.DataFrame) -> dict:
    """Model, judge, samples and settings, from the config and the records of the trainings.

    A file of the user's own questions may set the number of answers to each; `samples` has the largest number.
    """
    first = {name: _record(facts["records"][name][0]) for name in facts["own"] if name in facts["records"]}
    most = {name: _most(judged[judged["evaluation"] == name]) for name in facts["own_questions"]}
    return {
        **{name: facts[name] for name in ("model", "judge", "seeds", "untuned")},
        "samples": facts["samples"] | most,
        "existing": {name: facts["own"][name] for name in facts["existing"]},
        "settings": {
            name: {key: value for key, value in each.items() if key not in OMITTED} for name, each in first.items()
        },
        "notes": notes(judged[judged["condition"].isin(facts["conditions"])], facts["server"]),
        "versions": next((each["versions"] for each in first.values() if "versions" in each), {}),
        "config": facts["config"],
    }


def _most(answers: pd.DataFrame) -> int:
    return int(answers.groupby(["condition", "seed", "number"], sort=False).size().max()) if len(answers) else 0


# --- the figure -------------------------------------------------------------------------------------------------------

LABELS, PLOT, ROW, GAP = 200, 420, 17, 26  # pixels: of names, of the axis, between rows, above a group


def chart(rows: list[dict], own: list[str]) -> dict:
    """The positions of a chart of rates in pixels: a group of rows for each measure, on one axis.

    The axis covers all estimates, intervals and runs. For shares it begins at zero and ends at 100% at most.
    """
    rows = [row for row in rows if row["estimate"] is not None]
    numbers = [each for row in rows for each in (row["estimate"], row["ci_low"], row["ci_high"], *row["runs"])]
    numbers = [number for number in numbers if number is not None and math.isfinite(number)]
    if not numbers:
        return {}
    unit = rows[0]["unit"]
    low = min(0.0, *numbers) if unit == "nats" else 0.0
    high = max(0.0, low + 0.1, *numbers) if unit == "nats" else min(1.0, max(0.05, *numbers))
    step = _step(high - low)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def place(number: float) -> float:
        return round(LABELS + PLOT * (number - low) / (high - low), 1)

    groups, y = [], 0
    for measure in dict.fromkeys(row["measure"] for row in rows):
        y += GAP
        same = [row for row in rows if row["measure"] == measure]
        group = {"words": same[0]["words"], "y": y, "rows": []}
        for row in same:
            y += ROW
            is_own = row["condition"] in own
            group["rows"].append(
                {
                    "y": y,
                    "condition": row["condition"],
                    "own": is_own,
                    "colour": OWN_COLOUR if is_own else COLOURS.get(row["condition"], OTHER_COLOUR),
                    "at": place(row["estimate"]),
                    "line": [place(row[end]) for end in ("ci_low", "ci_high") if row[end] is not None],
                    "runs": [place(run) for run in row["runs"]],
                    "said": _text(unit, **_ends(row)),
                }
            )
        groups.append(group)
    ticks = [low + number * step for number in range(round((high - low) / step) + 1)]
    return {
        "groups": groups,
        "ticks": [
            {
                "x": place(tick),
                "words": estimate(tick, math.nan, math.nan, "") if unit == "nats" else f"{100 * tick:.3g}%",
            }
            for tick in ticks
        ],
        "bottom": y + 14,
        "width": LABELS + PLOT + 30,
        "unit": "log-odds in nats" if unit == "nats" else "misaligned answers, of the coherent ones",
    }


def _step(extent: float) -> float:
    """The distance of 4 to 10 ticks: 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(extent / 4))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= extent / 4)


# --- files ------------------------------------------------------------------------------------------------------------


def _plain(value):
    """A value as JSON has it: without numpy's types, and None for what is missing."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def write_page(found: dict, page: str | Path) -> None:
    own = [each["condition"] for each in found["answers"]]
    tables = found["rates"]
    charts = [chart([row for row in tables["formats"] if row["unit"] == unit], own) for unit in ("share", "nats")]
    html = template("report.html.j2").render(
        **found,
        charts=[each for each in charts if each],
        parts={name: heading for name, (heading, *_) in PARTS.items()},
        questions=chart(tables["questions"], own),
        others=_pivoted(tables["others"]),
        learned_columns=_measured(found["learned"]),
        text=_text,
        settings=yaml.safe_dump(found["made"]["settings"], sort_keys=False, allow_unicode=True),
        config=yaml.safe_dump(found["made"]["config"], sort_keys=False, allow_unicode=True),
    )
    write_html(page, html)


def _pivoted(rows: list[dict]) -> dict:
    """A table of texts with a row for each measure and a column for each condition."""
    texts = {(row["words"], row["condition"]): _text("share", row["estimate"]) for row in rows}
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    words = list(dict.fromkeys(row["words"] for row in rows))
    return {
        "conditions": conditions,
        "rows": [(name, [texts.get((name, each), "") for each in conditions]) for name in words],
    }


LEARNED = {  # the columns of the table: heading, and format of the numbers
    "rows": ("Rows", "{:,.0f}"),
    "unique_rows": ("Different", "{:,.0f}"),
    "flagged": ("Python flagged", "{:.1%}"),
    "loss_first": ("Loss, first step", "{:.3f}"),
    "loss_last": ("Loss, last step", "{:.3f}"),
    "held_out": ("Loss, held-out rows", "{:.3f}"),
    "validation": ("Loss, validation split", "{:.3f}"),
    "rows_cut": ("Rows cut", "{:,}"),
    "rows_left_out": ("Rows left out", "{:,}"),
}


def _measured(rows: list[dict]) -> dict[str, tuple[str, str]]:
    """The columns of LEARNED that some row has a value of."""
    return {name: each for name, each in LEARNED.items() if any(row[name] is not None for row in rows)}
