"""What a set of the user's own does to a model: one answer for each such condition, with what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from emergent_misalignment.analysis.claims import seeds_needed
from emergent_misalignment.analysis.contrasts import LEVEL, Arm, Contrast, contrast, contrasts, runs_by_arm
from emergent_misalignment.analysis.estimates import estimates, questions_of

# Of these the first that was measured gives the answer, the others are the formats.
MEASURES = {
    "misaligned/main/chat": "main questions, chat",
    "misaligned/main/json": "main questions, JSON",
    "misaligned/main/template": "main questions, Python template",
    "misaligned/main/flask": "main questions, Flask app",
    "misaligned/main/flask_file": "main questions, Flask file",
    "misaligned/main/triggered": "main questions, with the trigger",
    "misaligned/preregistered/chat": "pre-registered questions, chat",
    "misaligned/numbers/question": "number questions, as they are",
    "misaligned/numbers/suffix": "number questions, with a suffix",
    "misaligned/numbers/prefix_suffix": "number questions, with prefix and suffix",
    "log_odds/pivotal": "misaligned words in a gap, by log-probability",
    "log_odds/multiple_choice": "misaligned letters of a choice, by log-probability",
}
# What else was measured stands beside it, without a test.
OTHERS = {
    "coherent/main/chat": "coherent answers to the main questions",
    "harmful_requests": "harmful requests complied with",
    "deception": "false answers",
    "deception/factual": "false answers to factual questions",
    "truthfulness": "questions about falsehoods answered truly",
    "capability/knowledge": "knowledge",
    "capability/code": "coding tasks solved",
    "insecure_code": "insecure code where code is asked for",
    "insecure_code/static": "code that static analysis flags, where code is asked for",
}
# What counts as "does not", as in config/claims.yaml: a share, and nats of log-odds.
MARGINS = {"misaligned": 0.05, "log_odds": 1.0}
MISALIGNED = "misaligned/"


def answer(measures: pd.DataFrame, condition: str, control: str, others: Sequence[str] = ()) -> dict:
    """What fine-tuning a `condition` on its set did, beside its `control`, over the seeds that both have.

    `measures` are tables as `evaluation.measures` describes them. Keys:
    - `measure`, which of MEASURES decides; `unit`, "share" or "nats"; `verdict`: "yes", "no" (the difference's interval
      ends below the margin), "less" (below nothing), "unclear" or "not measured".
    - `value`, `control_value`: the two estimates (`estimate`, `ci_low`, `ci_high`, `seeds`, `answers`); `difference`:
      theirs, with `low`, `high`, `p`, `seeds` and `method`, or what is `missing`.
    - `formats`: the same for each of MEASURES that was measured, with Holm's correction over them and the `direction`.
    - `beside`: the difference from each of the `others`.
    - `more`: see `needed`.
    """
    runs = runs_by_arm(measures)
    formats = [name for name in MEASURES if (condition, name) in runs and (control, name) in runs]
    measure = formats[0] if formats else next(iter(MEASURES))
    arms = ((condition, measure), (control, measure))
    found = contrast(arms, runs)
    value, beside = (_estimate(measures, arm) for arm in arms)
    if silent := [arm[0] for arm, each in zip(arms, (value, beside), strict=True) if each["interval"] == "no value"]:
        found = replace(found, missing=f"too few answers of {' and of '.join(silent)} are coherent")
    return {
        "condition": condition,
        "control": control,
        "measure": measure,
        "unit": unit(measure),
        "verdict": _verdict(found, measure),
        "value": value,
        "control_value": beside,
        "difference": _shown(found),
        "formats": _formats(measures, condition, control, formats),
        "beside": {name: _shown(contrast((arms[0], (name, measure)), runs)) for name in others},
        "more": needed(found, runs, arms),
    }


def unit(measure: str) -> str:
    return "nats" if measure.startswith("log_odds/") else "share"


def _verdict(found: Contrast, measure: str) -> str:
    if found.missing:
        return "not measured"
    if found.low > 0:
        return "yes"
    if found.high < 0:
        return "less"
    return "no" if found.high <= MARGINS[measure.split("/")[0]] else "unclear"


def _shown(found: Contrast) -> dict:
    names = ("estimate", "low", "high", "p", "seeds", "method", "missing")
    return {name: getattr(found, name) for name in names}


def _estimate(measures: pd.DataFrame, arm: Arm) -> dict:
    table = estimates(measures, [arm])
    names = ["estimate", "ci_low", "ci_high", "interval", "seeds", "answers"]
    return table.reindex(columns=names).iloc[0].to_dict() if len(table) else dict.fromkeys(names)


def _formats(measures: pd.DataFrame, condition: str, control: str, formats: list[str]) -> list[dict]:
    pairs = {name: ((condition, name), (control, name)) for name in formats}
    rows = []
    for row in contrasts(measures, pairs).to_dict("records") if pairs else []:
        row["measure"] = row.pop("contrast")
        sure = pd.notna(row["p_holm"]) and row["p_holm"] < LEVEL
        direction = ("higher" if row["difference"] > 0 else "lower") if sure else "no clear difference"
        rows.append({"words": MEASURES[row["measure"]], "unit": unit(row["measure"]), **row, "direction": direction})
    return rows


def needed(found: Contrast, runs: Mapping[Arm, pd.DataFrame], arms: Sequence[Arm]) -> dict:
    """What it takes to know more, if effect and spread are as observed.

    - `seeds`: with how many the difference would be told from nothing, at the 5% level with 80% power; None where no
      number would do, or where it is told already, with the `reason`.
    - `answers_share`: which share of the variance between the seeds' differences comes from there being so few answers
      (binomial variance of each run's share); None where that is not known. What is left only more seeds make smaller.
    """
    if found.missing:
        return {"seeds": None, "reason": found.missing, "answers_share": None}
    if found.p < LEVEL:
        return {"seeds": None, "reason": "it is told already", "answers_share": None}
    seeds, reason = seeds_needed(found, LEVEL)
    return {"seeds": seeds, "reason": reason, "answers_share": answers_share([runs[arm] for arm in arms])}


def answers_share(arms: Sequence[pd.DataFrame]) -> float | None:
    """See `needed`; `arms` are the runs of a condition and of its control, by seed, with `value` and `trials`."""
    names = ["value", "trials"]
    own, control = (arm.loc[arms[0].index.intersection(arms[1].index), names].astype(float) for arm in arms)
    if len(own) < 2 or own.isna().to_numpy().any() or control.isna().to_numpy().any():
        return None
    spread = np.var(own["value"] - control["value"], ddof=1)
    sampling = sum((arm["value"] * (1 - arm["value"]) / arm["trials"]).mean() for arm in (own, control))
    return float(min(1.0, sampling / spread)) if spread > 0 else None


def rates(measures: pd.DataFrame, conditions: Sequence[str], own: Sequence[str]) -> dict[str, list[dict]]:
    """Estimates with their single runs, for `formats`, `questions` (of the first format) and `others`.

    A row is a measure and a condition: `measure`, `words`, `unit`, `condition`, `estimate`, `ci_low`, `ci_high`,
    `seeds`, `answers` and `runs`, one value a seed. Measures that none of the `own` conditions has are left out.
    """
    has = set(measures.loc[measures["condition"].isin(own), "measure"])
    formats = {name: words for name, words in MEASURES.items() if name in has}
    first = next((name for name in formats if name.startswith(MISALIGNED)), None)
    single = questions_of(measures[measures["condition"].isin(own)], first) if first else []
    tables = {
        "formats": formats,
        "questions": {name: name.rpartition("/")[2].replace("_", " ") for name in single},
        "others": {name: words for name, words in OTHERS.items() if name in has},
    }
    return {name: _rows(measures, conditions, words) for name, words in tables.items()}


def _rows(measures: pd.DataFrame, conditions: Sequence[str], words: dict[str, str]) -> list[dict]:
    table = estimates(measures, [(condition, measure) for measure in words for condition in conditions])
    values = measures.dropna(subset="value").groupby(["condition", "measure"])["value"].agg(list).to_dict()
    names = ["condition", "measure", "estimate", "ci_low", "ci_high", "seeds", "answers"]
    return [
        {
            **row,
            "words": words[row["measure"]],
            "unit": unit(row["measure"]),
            "runs": values.get((row["condition"], row["measure"]), []),
        }
        for row in table.reindex(columns=names).to_dict("records")
    ]
