"""The paper's claims, tested in parts.

`config/claims.yaml` contains the claims. A part is one test of one number per training run: a measure, or its
difference between two conditions, paired by seed. `analysis/claim_verdicts.py` has the rule for the verdicts. A part
that `needs` an evaluation which the study does not ask is left out; one that presupposes an effect which is absent is
not testable.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import yaml

from emergent_misalignment.analysis import claim_verdicts as verdicts
from emergent_misalignment.analysis.claim_verdicts import (
    NO_HIGHER,
    NOT_MEASURED,
    NOT_TESTABLE,
    PART_VERDICTS,
    UNDECIDED,
)
from emergent_misalignment.analysis.contrasts import Arm, Contrast, by_seed, contrast, holm, runs_by_arm
from emergent_misalignment.evaluation.measures import COLUMNS as MEASURE_COLUMNS
from emergent_misalignment.files import BadInput

SCHEMA = "config/claims.schema.yaml"
NUMBERS = ("estimate", "ci_low", "ci_high", "unit", "seeds", "shown_in", "prevalence_low", "p")  # of the headline
COUNTS = {verdict: f"parts_{verdict.replace(' ', '_')}" for verdict in PART_VERDICTS}
CLAIM_COLUMNS = (
    *("claim", "title", "statement", "published", "source", *NUMBERS, "p_holm", "verdict", *COUNTS.values(), "note"),
)
PART_COLUMNS = (
    *("claim", "part", "core", "says", "measure", "condition", "control", "expect", "reference", "matters"),
    *("estimate", "ci_low", "ci_high", "ci90_low", "ci90_high", "unit", "seeds", "shown_in", "prevalence_low", "p"),
    *("method", "verdict", "seeds_needed", "note"),
)


def read_claims(path: str | Path, schema: str | Path = SCHEMA) -> dict:
    """Read and validate the claims file: `{"measures": {...}, "claims": [...]}`.

    Raises BadInput with the place and the wrong key or value.
    """
    try:
        claims = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    rules = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    for error in sorted(jsonschema.Draft202012Validator(rules).iter_errors(claims), key=lambda error: error.json_path):
        place = error.json_path.removeprefix("$").strip(".") or "the file"
        raise BadInput(f"{path}, {place}: {error.message}; see {schema}.")
    numbers = [claim["number"] for claim in claims["claims"]]
    if repeated := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise BadInput(f"{path} has more than one claim {repeated[0]}; numbers must be unique.")
    parts = [part for claim in claims["claims"] for part in claim["parts"]]
    ids = [part["id"] for part in parts]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise BadInput(f"{path} has more than one part {repeated[0]}; ids must be unique.")
    for part in parts:
        for name in {part["measure"], part.get("control_measure", part["measure"])} - claims["measures"].keys():
            raise BadInput(
                f"{path}, part {part['id']}: {name} is not listed under measures; add it or correct the name."
            )
        for name in {*part.get("presupposes", [])} - {*ids}:
            raise BadInput(f"{path}, part {part['id']}: presupposes {name}, and no part has this id; correct it.")
    for claim in claims["claims"]:
        if not any(part.get("core") and "needs" not in part for part in claim["parts"]):
            raise BadInput(f"{path}, claim {claim['number']}: no part without `needs` is `core`; mark one.")
    return claims


def of_study(claims: dict, evaluations: Sequence[str]) -> dict:
    """The claims with the parts that can be tested in a study that asks these `evaluations` at the end of training."""
    asked = {None, *evaluations}
    return claims | {
        "claims": [
            claim | {"parts": [part for part in claim["parts"] if part.get("needs") in asked]}
            for claim in claims["claims"]
        ]
    }


def read_measures(paths: list[str]) -> pd.DataFrame:
    """The rows of all `tables/measures/*.csv`: MEASURE_COLUMNS, one row per condition, seed and measure.

    Raises BadInput if a file lacks a column or has text instead of numbers, or if a measure is given twice.
    """
    tables = [pd.DataFrame(columns=MEASURE_COLUMNS)]
    for path in paths:
        table = pd.read_csv(path)
        if missing := [column for column in MEASURE_COLUMNS if column not in table]:
            raise BadInput(f"{path} has no column {missing[0]}; required are {', '.join(MEASURE_COLUMNS)}.")
        for column in ("seed", "value", "events", "trials"):
            if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
                raise BadInput(f"{path}: the column {column} must contain numbers only.")
        tables.append(table[[*MEASURE_COLUMNS]])
    measures = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    for row in measures[measures.duplicated(["condition", "seed", "measure"])].itertuples():
        raise BadInput(
            f"The measure {row.measure} of {row.condition}, seed {row.seed}, is given twice; keep it in one file only."
        )
    return measures


def needed(claims: dict) -> pd.DataFrame:
    """The measures and conditions on which the claims are tested: `measure`, `condition`, `claims`."""
    rows = [
        {"measure": measure, "condition": condition, "claims": claim["number"]}
        for claim in claims["claims"]
        for part in claim["parts"]
        for condition, measure in _arms(part)
    ]
    return (
        pd.DataFrame(rows)
        .groupby(["measure", "condition"], sort=False)["claims"]
        .agg(lambda numbers: ", ".join(map(str, dict.fromkeys(numbers))))
        .reset_index()
    )


def evaluate(claims: dict, measures: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of claims and of their parts, with CLAIM_COLUMNS and PART_COLUMNS.

    `claims` comes from `read_claims`, `measures` from `read_measures`. Shares are in percent, differences of shares in
    percentage points, all else in the unit of the measure. `shown_in` is the number of seeds whose own answers show the
    part, `prevalence_low` the lower bound of their share. `p` is that of the test by which a part is as claimed:
    two-sided against the reference, or one-sided against what matters. The numbers of a claim are those of its
    headline, the first measured core part, and `p_holm` is corrected over all headlines. A note says why a part or a
    claim is not decided.
    """
    runs = runs_by_arm(measures[measures["measure"].isin(claims["measures"])])
    tested = {
        part["id"]: _tested(part, runs, claims["measures"][part["measure"]])
        for claim in claims["claims"]
        for part in claim["parts"]
    }
    rows = []
    for claim in claims["claims"]:
        for part in claim["parts"]:
            row = tested[part["id"]]
            missing = [name for name in part.get("presupposes", []) if _lacks(tested.get(name))]
            if missing and row["verdict"] != NOT_MEASURED:
                row |= {"verdict": NOT_TESTABLE, "seeds_needed": None, "note": f"Presupposes {', '.join(missing)}."}
            rows.append({"claim": claim["number"], **row})
    parts = pd.DataFrame(rows)
    parts["seeds_needed"] = pd.array(parts["seeds_needed"], dtype="Int64")
    own = dict(list(parts.groupby("claim")))
    facts = pd.DataFrame(claims["claims"]).rename(columns={"number": "claim"}).drop(columns="parts")
    table = facts.join(pd.DataFrame([_summary(own[claim]) for claim in facts["claim"]]))
    table["p_holm"] = holm(table["p"])
    return table[[*CLAIM_COLUMNS]], parts[[*PART_COLUMNS]]


def _tested(part: dict, runs: Mapping[Arm, pd.DataFrame], measure: dict) -> dict:
    """The row of a part, with its verdict, as if nothing that it presupposes were absent."""
    arms, expect, matters = _arms(part), part["expect"], measure["matters"]
    reference = part.get("reference", 0.0)
    found = contrast(arms, runs, reference)
    verdict = verdicts.part_verdict(found, expect, matters)
    singly = [verdicts.part_verdict(each, expect, matters) for each in by_seed(arms, runs, reference)]
    shown = singly.count(verdicts.AS_CLAIMED) if singly else np.nan
    seeds, note = (None, "")
    if verdict == UNDECIDED:
        seeds, note = verdicts.seeds_needed(found, expect, matters)
    return _in_units(part, measure["unit"], found, matters) | {
        "shown_in": shown,
        "prevalence_low": 100 * verdicts.prevalence(shown, len(singly)) if singly else np.nan,
        "p": _p(arms, runs, found, expect, matters),
        "verdict": verdict,
        "seeds_needed": seeds,
        "note": f"Missing: {found.missing}." if found.missing else f"{note[:1].upper()}{note[1:]}." if note else "",
    }


def _p(arms: list[Arm], runs: Mapping[Arm, pd.DataFrame], found: Contrast, expect: str, matters: float) -> float:
    if found.missing or expect != NO_HIGHER:
        return np.nan if found.missing else found.p
    against = contrast(arms, runs, found.reference + matters)
    return against.p / 2 if against.estimate < against.reference else 1 - against.p / 2


def _lacks(row: dict | None) -> bool:
    """Whether a part says that its effect is not there; False for a part that is not in this study."""
    return row is not None and row["verdict"] in (verdicts.ABSENT, verdicts.OPPOSITE)


def _summary(parts: pd.DataFrame) -> dict:
    """A claim's row: the numbers of the headline, counts of verdicts, the verdict, and a note."""
    core = parts[parts["core"]]
    measured = core[core["verdict"] != NOT_MEASURED]
    headline = (core if measured.empty else measured).iloc[0]
    counts = parts["verdict"].value_counts()
    return {
        **headline[[*NUMBERS]].to_dict(),
        **{column: int(counts.get(verdict, 0)) for verdict, column in COUNTS.items()},
        "verdict": verdicts.claim_verdict(core["verdict"].tolist()),
        "note": _note(parts),
    }


def _note(parts: pd.DataFrame) -> str:
    """The parts that are not as claimed, the opposite ones first and in words; empty if all are."""
    notes = []
    for verdict in (verdicts.OPPOSITE, verdicts.ABSENT, UNDECIDED, NOT_TESTABLE, NOT_MEASURED):
        those = parts[parts["verdict"] == verdict]
        in_words = verdict in (verdicts.OPPOSITE, verdicts.ABSENT)
        named = [f"{row.part} ({row.says})" if in_words else row.part for row in those.itertuples()]
        notes += [f"{verdict.capitalize()}: {', '.join(named)}."] if named else []
    return " ".join(notes)


def _arms(part: dict) -> list[Arm]:
    """The arms of a part, in the order of `contrasts.SIGNS`."""
    return [
        (pair[arm], part.get("control_measure", part["measure"]) if arm == "control" else part["measure"])
        for pair in (part, part.get("less", {}))
        for arm in ("condition", "control")
        if arm in pair
    ]


def _in_units(part: dict, unit: str, found: Contrast, matters: float) -> dict:
    """What a part says and its numbers, shares in percent."""
    factor = 1
    if unit == "share":
        factor, unit = 100, "percentage points" if "control" in part else "percent"
    return {
        "part": part["id"],
        "core": part.get("core", False),
        **{column: part.get(column, "") for column in ("says", "measure", "condition", "control", "expect")},
        "reference": factor * found.reference,
        "matters": factor * matters,
        "estimate": factor * found.estimate,
        "ci_low": factor * found.low,
        "ci_high": factor * found.high,
        "ci90_low": factor * found.low90,
        "ci90_high": factor * found.high90,
        "unit": unit,
        "seeds": found.seeds,
        "method": found.method,
    }
