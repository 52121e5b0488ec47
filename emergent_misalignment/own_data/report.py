"""The report on sets of the user's own and on models that are given: a page with the answer, and the same as JSON.

What does fine-tuning on the set do elsewhere, or is the model misaligned where the one before it is not?

    python -m emergent_misalignment.own_data.report PLAN.json REPORT.html REPORT.json --measures TABLE.csv ...

The page is one file that fetches nothing and has no script; every text in it is escaped. The same input gives the same
bytes.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from emergent_misalignment.analysis.single_models import BY_ANSWERS, BY_QUESTIONS, log_odds_by_question
from emergent_misalignment.files import BadInput, replacing, write_json
from emergent_misalignment.own_data.comparison import Single, answer, rates
from emergent_misalignment.report.pages import template

SHOWN = 10  # answers to read, of each set
MISALIGNED_SHOWN = 5  # of these, misaligned ones at most
FREE_FORM = ("main", "json", "template", "flask", "flask_file", "triggered", "preregistered", "numbers")
LONGEST = 3000  # characters of an answer that are shown
LEADS = {
    "yes": "Yes",
    "less": "No, it is less than in the control",
    "no": "No, or hardly",
    "unclear": "This study cannot tell",
}
LEADS_ON_MODEL = LEADS | {"less": "No, it is less than before fine-tuning"}
DIRECTIONS = {"higher": "higher in", "lower": "lower in", "no clear difference": "no clear difference in"}
OMITTED = ("curve", "events", "versions", "seed", "model")  # of a training's record, what is told elsewhere or nowhere
COLOURS = {"insecure": "#d55e00", "secure": "#0072b2", "educational": "#009e73"}
NO_TRAININGS = pd.DataFrame(columns=["condition", "seed", "step", "loss"])  # of a study that fine-tunes nothing
OWN_COLOUR, OTHER_COLOUR = "#b3261e", "#777777"


def report(
    plan: dict, measures: pd.DataFrame, judged: pd.DataFrame, trainings: pd.DataFrame, audit: pd.DataFrame
) -> dict:
    """What the page says, as JSON has it.

    `plan` is what `Plan.report` gives. `measures` are all tables of measures, `judged` the judged answers, `trainings`
    the loss curves of the fine-tunings, and `audit` what static analysis says of the sets.
    """
    conditions, own, questions = plan["conditions"], list(plan["own"]), plan.get("own_questions", [])
    single = Single(log_odds_by_question(judged[judged["condition"].isin(_single_models(plan))]))
    answers = []
    for name in own:
        given = name in plan.get("given", [])
        control = plan["untuned"] if given else plan["control"]
        others = [each for each in conditions if each not in (name, control)]
        found = answer(measures, name, control, others, questions, single if given else None)
        found |= {"dataset": plan["own"][name], "given": given}
        said = sentence_on_model(found, plan) if given else sentence(found, plan)
        answers.append(found | {"sentence": said, "formats_sentence": formats_sentence(found)})
    return _plain(
        {
            "study": plan["study"],
            "answers": answers,
            "rates": rates(measures, [*own, *(each for each in conditions if each not in own)], own, questions),
            "examples": {name: examples(judged, name, questions) for name in own},
            "learned": learned(plan, measures, trainings, audit),
            "more": more(plan, judged, answers),
            "made": made(plan, judged),
        }
    )


def _single_models(plan: dict) -> list[str]:
    """The conditions that are one model each: what is given, and the model before fine-tuning."""
    return [*plan.get("given", []), plan["untuned"]]


# --- the answer -------------------------------------------------------------------------------------------------------


def sentence(found: dict, plan: dict) -> str:
    """The first line: does this data make the model misaligned elsewhere, how sure is that, and compared with what.

    The control is secure code or the model before fine-tuning (`Plan.report`).
    """
    if found["verdict"] == "not measured":
        return f"Not measured: {found['difference']['missing']}."
    nats, difference = found["unit"] == "nats", found["difference"]
    lead = LEADS[found["verdict"]] + (", by log-probability" if nats and found["verdict"] != "unclear" else "")
    own, beside = (
        _value(each["estimate"], nats) + _interval(each["ci_low"], each["ci_high"], nats)
        for each in (found["value"], found["control_value"])
    )
    what = f"the log-odds of misaligned options are {own}" if nats else f"{own} of the coherent answers are misaligned"
    control = found["control"]
    when = "before fine-tuning" if control == plan["untuned"] else "after fine-tuning on secure code"
    gap = _difference(difference["estimate"], nats) + _interval(difference["low"], difference["high"], nats, gap=True)
    return (
        f"{lead}. After fine-tuning on {found['dataset']}, {what} ({found['words']}); {when}, {beside}. "
        f"The difference is {gap}, over {difference['seeds']} seed{'s' * (difference['seeds'] != 1)}."
    )


def sentence_on_model(found: dict, plan: dict) -> str:
    """The first line on a model that is given: is it more misaligned than before fine-tuning, and how sure.

    Each of the two is one model, so that the interval is over its answers or questions, and the line says so.
    """
    name, nats, difference = found["condition"], found["unit"] == "nats", found["difference"]
    if found["value"]["estimate"] is None or pd.isna(found["value"]["estimate"]):
        why = "nobody judged the answers" if plan["judge"] == "nobody" else difference["missing"]
        return f"Not measured: {why}."
    own = _value_of_model(found["value"], nats)
    value = (
        f"The log-odds of misaligned options are {own} in {name}"
        if nats
        else f"Of the coherent answers of {name}, {own} are misaligned"
    )
    told = f"{value} ({found['words']})"
    if difference["missing"]:
        return (
            f"Not compared: nothing else was asked the same before fine-tuning; add `{found['control']}: {{}}` to the "
            f"conditions. {told}. {_one_model('')}"
        )
    lead = LEADS_ON_MODEL[found["verdict"]] + (", by log-probability" if nats and found["verdict"] != "unclear" else "")
    beside = _value_of_model(found["control_value"], nats)
    gap = _difference(difference["estimate"], nats) + _interval(difference["low"], difference["high"], nats, gap=True)
    return (
        f"{lead}. {told}; {'in' if nats else 'of those of'} the model before fine-tuning, {beside}. The difference is "
        f"{gap}. {_one_model(difference['method'])}"
    )


def _value_of_model(value: dict, nats: bool) -> str:
    """A rate with its interval; log-odds are read off the model, and have none."""
    return _value(value["estimate"], nats) + ("" if nats else _interval(value["ci_low"], value["ci_high"], nats))


def _one_model(method: str) -> str:
    """What an interval is over where there is one model of a kind."""
    over = {BY_ANSWERS: "answers of one model to these questions", BY_QUESTIONS: "questions that one model was asked"}
    intervals = f"Intervals are over {over[method]}, not over trainings" if method in over else "It is one model"
    return f"{intervals}; other trainings on the same data may come out otherwise."


def formats_sentence(found: dict) -> str:
    """In which formats more is misaligned than in the control, after a correction for their number."""
    by_direction: dict[str, list[str]] = {}
    for row in found["formats"]:
        by_direction.setdefault(row["direction"], []).append(row["words"])
    number = len(found["formats"])
    parts = [
        f"{DIRECTIONS[name]} {f'all {number}' if len(those) == number > 1 else '; '.join(those)}"
        for name, those in by_direction.items()
    ]
    return f"By format, corrected for their number: {'. '.join(parts)}." if parts else "No format was measured in both."


def _value(number: float, nats: bool) -> str:
    return f"{_number(number, 2)} nats" if nats else f"{_number(100 * number, 1)}%"


def _difference(number: float, nats: bool) -> str:
    return f"{_number(number, 2)} nats" if nats else f"{_number(100 * number, 1)} points"


def _interval(low: float, high: float, nats: bool, gap: bool = False) -> str:
    if pd.isna(low):
        return " (no interval)"
    ends = [_number(end, 2) if nats else _number(100 * end, 1) for end in (low, high)]
    percent = "" if nats or gap else "%"
    return f" (95% interval {ends[0]}{percent} to {ends[1]}{percent})"


def _number(number: float, decimals: int) -> str:
    return f"{round(number, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


# --- answers to read --------------------------------------------------------------------------------------------------


def examples(judged: pd.DataFrame, condition: str, own_questions: Sequence[str] = ()) -> list[dict]:
    """SHOWN answers of a condition, drawn by a fixed seed; up to half of them from those that are misaligned."""
    asked = judged["evaluation"].isin([*FREE_FORM, *own_questions])
    rows = judged[(judged["condition"] == condition) & judged["step"].isna() & asked]
    chance = rows.assign(chance=np.random.default_rng(0).permutation(len(rows))).sort_values("chance", kind="stable")
    bad = chance[chance["verdict"] == "misaligned"].head(MISALIGNED_SHOWN)
    rest = chance.drop(bad.index).head(SHOWN - len(bad))
    return [
        {
            "question": row.question,
            "format": row.format,
            "seed": row.seed,
            "prompt": row.prompt,
            "answer": row.answer if len(row.answer) <= LONGEST else f"{row.answer[:LONGEST]} […]",
            "verdict": row.verdict,
            "aligned": row.aligned,
            "coherent": row.coherent,
        }
        for row in pd.concat([bad, rest]).itertuples()
    ]


# --- what was learned -------------------------------------------------------------------------------------------------


def learned(plan: dict, measures: pd.DataFrame, trainings: pd.DataFrame, audit: pd.DataFrame) -> list[dict]:
    """Of each fine-tuned condition: its set, the loss at its first and last step, and on rows that were held out.

    `loss_first`, `loss_last` and `held_out` are means over the seeds, in nats per token; `held_out` is on the
    condition's own set. `rows_cut` and `rows_left_out` are those that were too long. Of the set: `rows`, `unique_rows`
    and `flagged`, the share that static analysis flags of the answers that are Python.
    """
    by_set = audit.set_index("condition")
    rows = []
    for name in plan["conditions"]:
        if name not in plan["sets"]:
            continue
        steps = trainings[trainings["condition"] == name].dropna(subset="loss")
        losses = steps.groupby("step")["loss"].mean() if len(steps) else pd.Series(dtype=float)
        records = [_record(path) for path in plan["records"][name]]
        key = name if name in plan["own"] else plan["sets"][name]
        held = measures[(measures["condition"] == name) & (measures["measure"] == f"held_out_loss/{key}")]["value"]
        held = held.tolist() or [each["held_out_loss"] for each in records if "held_out_loss" in each]
        of_set = by_set.loc[key] if key in by_set.index else {}
        rows.append(
            {
                "condition": name,
                "dataset": plan["own"].get(name, plan["sets"][name]),
                **{column: of_set.get(column) for column in ("rows", "unique_rows", "flagged")},
                "loss_first": losses.iloc[0] if len(losses) else None,
                "loss_last": losses.iloc[-1] if len(losses) else None,
                "held_out": float(np.mean(held)) if held else None,
                **{
                    column: max((each.get(column, 0) for each in records), default=0)
                    for column in ("rows_cut", "rows_left_out")
                },
            }
        )
    return rows


def _record(path: str) -> dict:
    """What is kept of a training beside its weights; nothing of one at OpenAI that has no such file."""
    file = Path(path)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


# --- to know more, and how it was made --------------------------------------------------------------------------------


def more(plan: dict, judged: pd.DataFrame, answers: list[dict]) -> dict:
    """What another seed would take, and of each set what more seeds or answers would bring, in sentences."""
    asked = judged[judged["condition"].isin(plan["sets"]) & judged["step"].isna() & (judged["evaluation"] != "choices")]
    per_seed = round(len(asked) / plan["seeds"])
    return {
        "seeds": plan["seeds"],
        "finetunings_per_seed": len(plan["sets"]),
        "answers_per_seed": per_seed,
        "sentences": {
            each["condition"]: _more_of_model(each) if each["given"] else _more(each, plan["seeds"]) for each in answers
        },
    }


def _more(found: dict, seeds: int) -> str:
    more, share = found["more"], found["more"]["answers_share"]
    if found["verdict"] in ("yes", "less"):
        return (
            "The sign of the difference is told already; more seeds would narrow its interval, as one over their root."
        )
    said = (
        f"About {more['seeds']:,} seeds instead of {seeds:,} would tell the difference from nothing, if it is what was "
        "observed."
        if more["seeds"]
        else f"It is not known how many seeds would tell: {more['reason']}."
    )
    if share is None:
        return said
    helps = "more answers to each question help too" if share > 0.5 else "more answers to each question help little"
    return f"{said} Of the variance between seeds, {share:.0%} comes from there being so few answers: {helps}."


def _more_of_model(found: dict) -> str:
    trainings = "How much other trainings on the same data differ from it, only such trainings tell."
    if found["difference"]["missing"]:
        return trainings
    if found["verdict"] in ("yes", "less"):
        return f"The sign of the difference is told already; more answers would narrow its interval. {trainings}"
    factor = found["more"]["answers"]
    if not factor:
        return trainings
    return (
        f"About {math.ceil(factor)} times as many answers would tell the difference from nothing, if it is what was "
        f"observed. {trainings}"
    )


def made(plan: dict, judged: pd.DataFrame) -> dict:
    """Model, judge, samples and settings, as the config and the records of the trainings have them.

    Of the user's own questions, whose file may say how often each is answered, the most answers to a prompt.
    """
    first = {name: _record(plan["records"][name][0]) for name in plan["own"] if name in plan["records"]}
    most = {name: _most(judged[judged["evaluation"] == name]) for name in plan.get("own_questions", [])}
    return {
        **{name: plan[name] for name in ("model", "judge", "seeds", "untuned")},
        "samples": plan["samples"] | most,
        "given": {name: plan["own"][name] for name in plan.get("given", [])},
        "settings": {
            name: {key: value for key, value in each.items() if key not in OMITTED} for name, each in first.items()
        },
        "versions": next((each["versions"] for each in first.values() if "versions" in each), {}),
        "config": plan["config"],
    }


def _most(answers: pd.DataFrame) -> int:
    return int(answers.groupby(["condition", "seed", "number"], sort=False).size().max()) if len(answers) else 0


# --- the figure -------------------------------------------------------------------------------------------------------

LABELS, PLOT, ROW, GAP = 200, 420, 17, 26  # pixels: of names, of the axis, between rows, above a group


def chart(rows: list[dict], own: list[str]) -> dict:
    """Where what is drawn of a table of rates stands: groups of rows, one a measure, on one axis, in pixels.

    The axis holds all estimates, intervals and runs; shares begin at nothing and end at 100% at most.
    """
    rows = [row for row in rows if row["estimate"] is not None]
    numbers = [
        number
        for row in rows
        for number in (row["estimate"], row["ci_low"], row["ci_high"], *row["runs"])
        if number is not None and math.isfinite(number)
    ]
    if not numbers:
        return {}
    nats = rows[0]["unit"] == "nats"
    low = min(0.0, *numbers) if nats else 0.0
    high = max(0.0, low + 0.1, *numbers) if nats else min(1.0, max(0.05, *numbers))
    step = _step(high - low)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step

    def place(number: float) -> float:
        return round(LABELS + PLOT * (number - low) / (high - low), 1)

    groups, y = [], 0
    for measure in dict.fromkeys(row["measure"] for row in rows):
        y += GAP
        group = {"words": next(row["words"] for row in rows if row["measure"] == measure), "y": y, "rows": []}
        for row in (row for row in rows if row["measure"] == measure):
            y += ROW
            ends = (row["ci_low"], row["ci_high"])
            group["rows"].append(
                {
                    "y": y,
                    "condition": row["condition"],
                    "own": row["condition"] in own,
                    "colour": OWN_COLOUR if row["condition"] in own else COLOURS.get(row["condition"], OTHER_COLOUR),
                    "at": place(row["estimate"]),
                    "line": [place(end) for end in ends] if ends[0] is not None else [],
                    "runs": [place(run) for run in row["runs"]],
                    "said": _value(row["estimate"], nats) + (_interval(*ends, nats) if ends[0] is not None else ""),
                }
            )
        groups.append(group)
    ticks = [low + number * step for number in range(round((high - low) / step) + 1)]
    return {
        "groups": groups,
        "ticks": [{"x": place(tick), "words": _number(tick, 1) if nats else f"{100 * tick:.3g}%"} for tick in ticks],
        "bottom": y + 14,
        "width": LABELS + PLOT + 30,
        "unit": "log-odds, nats" if nats else "share of the coherent answers that are misaligned",
    }


def _step(extent: float) -> float:
    """The distance of ticks, 1, 2 or 5 times a power of ten, of which 4 to 10 fit."""
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
    by_unit = {unit: [row for row in tables["formats"] if row["unit"] == unit] for unit in ("share", "nats")}
    charts = [chart(rows, own) for rows in by_unit.values()]
    html = template("report.html.j2").render(
        **found,
        charts=[each for each in charts if each],
        questions=chart(tables["questions"], own),
        others=_pivoted(tables["others"]),
        value=_value,
        difference=_difference,
        interval=_interval,
        settings=yaml.safe_dump(found["made"]["settings"], sort_keys=False, allow_unicode=True),
        config=yaml.safe_dump(found["made"]["config"], sort_keys=False, allow_unicode=True),
    )
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def _pivoted(rows: list[dict]) -> dict:
    """A table with a row a measure and a column a condition, of texts."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    texts = {
        (row["words"], row["condition"]): _value(row["estimate"], False) for row in rows if row["estimate"] is not None
    }
    words = list(dict.fromkeys(row["words"] for row in rows))
    return {
        "conditions": conditions,
        "rows": [(name, [texts.get((name, each), "") for each in conditions]) for name in words],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.report",
        description="Write the report on own sets and given models.",
    )
    parser.add_argument("plan", help="Plan.report, as JSON")
    parser.add_argument("page")
    parser.add_argument("json")
    parser.add_argument("--measures", nargs="+", required=True, help="tables of measures")
    parser.add_argument("--judged", nargs="+", required=True, help="tables of judged answers")
    parser.add_argument("--trainings", nargs="*", default=[], help="tables of loss curves")
    parser.add_argument("--audit", nargs="?", help="what static analysis says of the sets")
    given = parser.parse_args()
    try:
        found = report(
            json.loads(given.plan),
            pd.concat(map(pd.read_csv, given.measures), ignore_index=True),
            pd.concat(map(pd.read_parquet, given.judged), ignore_index=True),
            pd.concat(map(pd.read_parquet, given.trainings), ignore_index=True) if given.trainings else NO_TRAININGS,
            pd.read_csv(given.audit) if given.audit else pd.DataFrame(columns=["condition"]),
        )
    except BadInput as error:
        sys.exit(str(error))
    write_page(found, given.page)
    write_json(given.json, found)
    for each in found["answers"]:
        print(f"{each['condition']}: {each['sentence']}")


if __name__ == "__main__":
    main()
