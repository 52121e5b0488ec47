"""The paper's claims, tested in parts; verdicts come from intervals and corrected tests, not from point estimates.

`config/claims.yaml` contains the claims. A claim has parts, called 3a, 3b and so on in their order. A part is one test
of one number per training run: a measure, or its difference between two conditions, paired by seed.

A part is *reproduced* if its test excludes the margin on the claimed side, *contradicted* if it does so on the other
side, and *undecided* otherwise. The tests are two-sided, with Holm's correction over one family: all measured parts of
all claims. A part without measures is *not measured* and does not affect the others. A part that `needs` an evaluation
which the study does not ask is left out.

A claim is *reproduced* if all of its parts are, *partly reproduced* if some are, *contradicted* if none is and at least
one is contradicted, *not measured* if no part was measured, *undecided* otherwise.
"""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import jsonschema
import numpy as np
import pandas as pd
import yaml
from statsmodels.stats.power import TTestPower

from emergent_misalignment.analysis.contrasts import LEVEL, Arm, Contrast, contrast, holm, runs_by_arm
from emergent_misalignment.evaluation.measures import COLUMNS as MEASURE_COLUMNS
from emergent_misalignment.files import BadInput

POWER = 0.8
MOST_SEEDS = 1000  # largest number of seeds that is recommended
SCHEMA = "config/claims.schema.yaml"
PART_VERDICTS = ("reproduced", "contradicted", "undecided", "not measured")
VERDICTS = ("reproduced", "partly reproduced", "contradicted", "undecided", "not measured")

CLAIM_COLUMNS = (
    *("claim", "title", "statement", "published", "source", "estimate", "ci_low", "ci_high", "unit", "p_holm"),
    *("verdict", *(f"parts_{verdict.replace(' ', '_')}" for verdict in PART_VERDICTS), "note"),
)
PART_COLUMNS = (
    *("claim", "part", "says", "measure", "condition", "control", "expect", "margin", "estimate", "ci_low", "ci_high"),
    *("unit", "seeds", "p", "p_holm", "method", "verdict", "seeds_needed", "note"),
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
    for claim in claims["claims"]:
        for part in claim["parts"]:
            for name in {part["measure"], part.get("control_measure", part["measure"])} - claims["measures"].keys():
                raise BadInput(
                    f"{path}, claim {claim['number']}: {name} is not listed under measures; add it or correct the name."
                )
        last = ["needs" in part for part in claim["parts"]]
        if last != sorted(last) or all(last):
            raise BadInput(
                f"{path}, claim {claim['number']}: parts with `needs` must come after parts without, so that the "
                "letters of the latter are the same in every study; reorder them."
            )
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

    `claims` comes from `read_claims`, `measures` from `read_measures`. Shares and their margins are in percent,
    differences of shares in percentage points, all else in the unit of the measure. Intervals are 95% without
    correction; `p` is two-sided, and `p_holm` is corrected over all measured parts. Estimate, interval and `p_holm` of
    a claim are those of its first measured part. A note says why a part or a claim is not reproduced.
    """
    runs = runs_by_arm(measures[measures["measure"].isin(claims["measures"])])
    rows, results = [], []
    for claim in claims["claims"]:
        for place, part in enumerate(claim["parts"]):
            result = contrast(_arms(part), runs, part["expect"], part.get("margin", 0.0))
            unit = claims["measures"][part["measure"]]["unit"]
            rows.append(
                {
                    "claim": claim["number"],
                    "part": f"{claim['number']}{ascii_lowercase[place]}",
                    **_shown(part, result, unit),
                }
            )
            results.append(result)
    parts = pd.DataFrame(rows)
    parts["p_holm"] = holm(parts["p"])
    parts["verdict"] = [_verdict(result, p) for result, p in zip(results, parts["p_holm"], strict=True)]
    level = LEVEL / max(1, int((parts["verdict"] == "undecided").sum()))  # Holm's level for the next part
    remarks = [_remark(result, verdict, level) for result, verdict in zip(results, parts["verdict"], strict=True)]
    parts["seeds_needed"] = pd.array([seeds for seeds, _ in remarks], dtype="Int64")
    parts["note"] = [note for _, note in remarks]
    own = dict(list(parts.groupby("claim")))
    facts = pd.DataFrame(claims["claims"]).rename(columns={"number": "claim"}).drop(columns="parts")
    summaries = [_summary(own[claim]) for claim in facts["claim"]]
    return facts.join(pd.DataFrame(summaries))[[*CLAIM_COLUMNS]], parts[[*PART_COLUMNS]]


def _verdict(result: Contrast, p_holm: float) -> str:
    """The verdict on a part, one of PART_VERDICTS."""
    if result.missing:
        return "not measured"
    if p_holm >= LEVEL:
        return "undecided"
    return "reproduced" if result.distance > 0 else "contradicted"


def _summary(parts: pd.DataFrame) -> dict:
    """A claim's row: the numbers of the first measured part, counts of verdicts, the verdict, and a note."""
    counts = parts["verdict"].value_counts().reindex(PART_VERDICTS, fill_value=0)
    if counts["reproduced"]:
        verdict = "reproduced" if counts["reproduced"] == len(parts) else "partly reproduced"
    elif counts["not measured"] == len(parts):
        verdict = "not measured"
    else:
        verdict = "contradicted" if counts["contradicted"] else "undecided"
    measured = parts[parts["verdict"] != "not measured"]
    first = (parts if measured.empty else measured).iloc[0]
    first = first[["estimate", "ci_low", "ci_high", "unit", "p_holm"]].to_dict()
    numbers = {f"parts_{name.replace(' ', '_')}": count for name, count in counts.items()}
    return first | numbers | {"verdict": verdict, "note": _note(parts)}


def _note(parts: pd.DataFrame) -> str:
    """The parts that are not reproduced, the contradicted ones first and in words; empty if all are."""
    groups = {verdict: parts[parts["verdict"] == verdict] for verdict in PART_VERDICTS}
    against = [f"{row.part} ({row.says})" for row in groups["contradicted"].itertuples()]
    labels = {
        "Contradicted": against,
        "Undecided": groups["undecided"]["part"],
        "Not measured": groups["not measured"]["part"],
    }
    return " ".join(f"{name}: {', '.join(those)}." for name, those in labels.items() if len(those))


def _arms(part: dict) -> list[Arm]:
    """The arms of a part, in the order of `contrasts.SIGNS`."""
    return [
        (pair[arm], part.get("control_measure", part["measure"]) if arm == "control" else part["measure"])
        for pair in (part, part.get("less", {}))
        for arm in ("condition", "control")
        if arm in pair
    ]


def _remark(result: Contrast, verdict: str, level: float) -> tuple[int | None, str]:
    """The number of seeds that would decide an undecided part, and a sentence on what is missing or unclear."""
    if verdict == "not measured":
        return None, f"Missing: {result.missing}."
    if verdict != "undecided":
        return None, ""
    seeds, reason = seeds_needed(result, level)
    remarks = [f"{reason[:1].upper()}{reason[1:]}."] if reason else []
    if result.p < LEVEL:
        side = "as claimed" if result.distance > 0 else "the opposite"
        remarks.insert(0, f"By its own interval {side}, but not after the correction.")
    return seeds, " ".join(remarks)


def seeds_needed(result: Contrast, level: float) -> tuple[int | None, str]:
    """The number of seeds for 80% power at `level` if effect and spread are as observed, and an empty string.

    Returns None and the reason if no number of seeds is enough.
    """
    if result.trials:
        answers = np.log(level / 2) / np.log1p(-result.margin) if result.margin > 0 else np.inf
        number = answers / result.trials * result.seeds
        return (int(np.ceil(number)), "") if np.isfinite(number) else (None, "no number of answers shows a share of 0")
    if np.isnan(result.effect):
        return None, result.method
    if result.effect <= 0:
        return None, "the estimate points the other way"

    def power(seeds: int) -> float:
        chance = TTestPower().power(result.effect, seeds, level / 2, alternative="larger")
        return 1.0 if np.isnan(chance) else chance  # nan if it is 1 up to rounding

    more = range(result.seeds + 1, MOST_SEEDS + 1)
    place = bisect_left(more, POWER, key=power)
    return (more[place], "") if place < len(more) else (None, f"more than {MOST_SEEDS:,} seeds")


def _shown(part: dict, result: Contrast, unit: str) -> dict:
    """The numbers of a part's row, shares in percent."""
    factor = 1
    if unit == "share":
        factor, unit = 100, "percentage points" if "control" in part else "percent"
    return {
        **{column: part.get(column, "") for column in ("says", "measure", "condition", "control", "expect")},
        "margin": factor * part.get("margin", 0.0),
        "estimate": factor * result.estimate,
        "ci_low": factor * result.low,
        "ci_high": factor * result.high,
        "unit": unit,
        "seeds": result.seeds,
        "method": result.method,
        "p": np.nan if result.missing else result.p,
    }
