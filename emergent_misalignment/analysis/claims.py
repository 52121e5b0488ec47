"""The paper's claims, tested: a verdict for each, from intervals and corrected tests, never from a point.

`config/claims.yaml` holds the claims as data. A claim is a conjunction of tests, and each test is about one number per
training run: a measure, or its difference between two conditions in the runs of the same seed. The unit is the training
run throughout.

A claim is *reproduced* if all of its tests come out (intersection-union: its p is the largest of theirs), corrected by
Holm over the claims that were measured. It is *contradicted* if one of its tests comes out the other way, corrected in
the same manner and for the number of its tests. Otherwise it is *undecided*. All p values are two-sided: p < .05 before
the correction says that the 95% interval lies wholly on one side of the margin.
"""

from bisect import bisect_left
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import yaml
from statsmodels.stats.power import TTestPower

from emergent_misalignment.analysis.contrasts import LEVEL, Arm, Contrast, contrast, holm, runs_by_arm
from emergent_misalignment.files import BadInput

POWER = 0.8
MOST_SEEDS = 1000  # an effect that needs more training runs than this is none that anybody will look for
MEASURE_COLUMNS = ("condition", "seed", "measure", "value", "events", "trials")
SCHEMA = "config/claims.schema.yaml"
VERDICTS = ("reproduced", "contradicted", "undecided", "not measured")
# Of a single test. Uncorrected: its own interval says so, and the correction for the number of claims takes it back.
OUTCOMES = (*("as claimed", "as claimed, uncorrected", "open", "opposite, uncorrected", "opposite", "not measured"),)

CLAIM_COLUMNS = (
    *("claim", "title", "statement", "published", "source", "estimate", "ci_low", "ci_high", "unit", "p", "p_holm"),
    *("verdict", "seeds_needed", "note"),
)
TEST_COLUMNS = (
    *("claim", "test", "says", "measure", "condition", "control", "expect", "margin", "estimate", "ci_low", "ci_high"),
    *("unit", "seeds", "p", "p_against", "method", "outcome"),
)


def read_claims(path: str | Path, schema: str | Path = SCHEMA) -> dict:
    """The claims file, checked against its schema: `{"measures": {...}, "claims": [...]}`.

    Raises BadInput with one sentence that names the place and the wrong key or value.
    """
    try:
        claims = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML ({' '.join(str(error).split())}); fix it there.") from error
    rules = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    for error in sorted(jsonschema.Draft202012Validator(rules).iter_errors(claims), key=lambda error: error.json_path):
        place = error.json_path.removeprefix("$").strip(".") or "the file"
        raise BadInput(f"{path}, {place}: {error.message}; {schema} says what may stand there.")
    numbers = [claim["number"] for claim in claims["claims"]]
    if repeated := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise BadInput(f"{path} has more than one claim {repeated[0]}; give each its own number.")
    for claim in claims["claims"]:
        for test in claim["tests"]:
            for name in {test["measure"], test.get("control_measure", test["measure"])} - claims["measures"].keys():
                raise BadInput(f"{path}, claim {claim['number']}: {name} is not listed under measures; list or fix it.")
    return claims


def read_measures(paths: list[str]) -> pd.DataFrame:
    """The rows of all `tables/measures/*.csv`: MEASURE_COLUMNS, one row per condition, seed and measure.

    Raises BadInput where a file lacks a column, holds something that is no number, or repeats what another one says.
    """
    tables = [pd.DataFrame(columns=MEASURE_COLUMNS)]
    for path in paths:
        table = pd.read_csv(path)
        if missing := [column for column in MEASURE_COLUMNS if column not in table]:
            raise BadInput(f"{path} has no column {missing[0]}; a measures file has {', '.join(MEASURE_COLUMNS)}.")
        for column in ("seed", "value", "events", "trials"):
            if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
                raise BadInput(f"{path}: the column {column} holds something that is no number; write numbers there.")
        tables.append(table[[*MEASURE_COLUMNS]])
    measures = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    check_unique(measures)
    return measures


def check_unique(measures: pd.DataFrame) -> None:
    """Raises BadInput if a measure is given twice for the same condition and seed."""
    twice = measures[measures.duplicated(["condition", "seed", "measure"])]
    for row in twice.itertuples():
        raise BadInput(
            f"The measure {row.measure} of {row.condition}, seed {row.seed}, is given twice; write it in one file only."
        )


def needed(claims: dict) -> pd.DataFrame:
    """Which measures of which conditions the claims are tested on: `measure`, `condition`, `claims`."""
    rows = [
        {"measure": measure, "condition": condition, "claims": claim["number"]}
        for claim in claims["claims"]
        for test in claim["tests"]
        for condition, measure in _arms(test)
    ]
    return (
        pd.DataFrame(rows)
        .groupby(["measure", "condition"], sort=False)["claims"]
        .agg(lambda numbers: ", ".join(map(str, dict.fromkeys(numbers))))
        .reset_index()
    )


def evaluate(claims: dict, measures: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of claims and of tests, with CLAIM_COLUMNS and TEST_COLUMNS.

    `claims` comes from `read_claims`, `measures` from `read_measures`. Shares are given in percent, and differences of
    shares in percentage points, margins too; all else in the measure's own unit. `p` speaks for the claim, `p_against`
    for its opposite; intervals are 95%, each by itself. The correction is over the claims that were measured; of the
    others the verdict is `not measured`, and the note says what is missing.
    """
    check_unique(measures)
    runs = runs_by_arm(measures[measures["measure"].isin(claims["measures"])])
    results = {
        claim["number"]: [
            (test["says"], contrast(_arms(test), runs, test["expect"], test.get("margin", 0.0)))
            for test in claim["tests"]
        ]
        for claim in claims["claims"]
    }
    table = pd.DataFrame([_conjunction(number, own) for number, own in results.items()])
    for column in ("p", "p_against"):
        table[f"{column}_holm"] = holm(table[column])
    measured = table["missing"] == ""
    table["verdict"] = np.select(
        [~measured, table["p_holm"] < LEVEL, table["p_against_holm"] < LEVEL],
        ["not measured", "reproduced", "contradicted"],
        "undecided",
    )
    level = LEVEL / max(1, int((measured & (table["p_holm"] >= LEVEL)).sum()))  # Holm's, for the first that fails
    remarks = [_remark(row, results[row.claim], level) for row in table.itertuples()]
    table["seeds_needed"] = pd.array([seeds for seeds, _ in remarks], dtype="Int64")
    table["note"] = [note for _, note in remarks]

    units = {name: measure["unit"] for name, measure in claims["measures"].items()}
    facts = pd.DataFrame(claims["claims"]).rename(columns={"number": "claim"}).drop(columns="tests")
    rows = []
    for claim, verdict in zip(claims["claims"], table["verdict"], strict=True):
        for number, (test, (_, result)) in enumerate(zip(claim["tests"], results[claim["number"]], strict=True), 1):
            shown = _shown(test, result, units[test["measure"]], _outcome(result, verdict, level))
            rows.append({"claim": claim["number"], "test": number, **shown})
    detail = pd.DataFrame(rows, columns=TEST_COLUMNS)
    headline = detail[detail["test"] == 1][["claim", "estimate", "ci_low", "ci_high", "unit"]]
    return facts.merge(headline, on="claim").merge(table, on="claim")[[*CLAIM_COLUMNS]], detail


def _arms(test: dict) -> list[Arm]:
    """What a test compares, in the order of `contrasts.SIGNS`."""
    return [
        (pair[part], test.get("control_measure", test["measure"]) if part == "control" else test["measure"])
        for pair in (test, test.get("less", {}))
        for part in ("condition", "control")
        if part in pair
    ]


def _conjunction(number: int, results: list[tuple[str, Contrast]]) -> dict:
    """The p values of a claim, and what it lacks; then it has none.

    All tests have to come out (intersection-union: the largest p); one that comes out the other way is enough against
    it (Bonferroni over its tests).
    """
    missing = "; ".join(dict.fromkeys(result.missing for _, result in results if result.missing))
    p = max(result.p for _, result in results)
    p_against = min(1.0, len(results) * min(result.p_against for _, result in results))
    return {"claim": number, "missing": missing} | {
        "p": np.nan if missing else p,
        "p_against": np.nan if missing else p_against,
    }


def _remark(claim, results: list[tuple[str, Contrast]], level: float) -> tuple[int | None, str]:
    """How many seeds would decide an undecided claim, and a sentence on what keeps a claim from being reproduced."""
    if claim.verdict == "not measured":
        return None, f"Missing: {claim.missing}."
    if claim.verdict == "contradicted":
        opposite = "; ".join(says for says, result in results if result.p_against < LEVEL)
        return None, f"The opposite holds of: {opposite} (corrected p = {claim.p_against_holm:.2g})."
    if claim.verdict == "reproduced":
        return None, ""
    seeds, open_tests = [], []
    for says, result in results:
        if result.p >= level:
            number, reason = seeds_needed(result, level)
            seeds.append(number)
            open_tests.append(says + (f" ({reason})" if reason else ""))
    return None if None in seeds else max(seeds), "Open: " + "; ".join(open_tests) + "."


def seeds_needed(result: Contrast, level: float) -> tuple[int | None, str]:
    """With how many seeds a test would come out at `level` with 80% power, if effect and spread are as observed.

    Returns nothing and the reason where no number of seeds would do.
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
        return 1.0 if np.isnan(chance) else chance  # it is missing where it is 1 but for rounding

    more = range(result.seeds + 1, MOST_SEEDS + 1)
    place = bisect_left(more, POWER, key=power)
    return (more[place], "") if place < len(more) else (None, f"more than {MOST_SEEDS:,} seeds")


def _shown(test: dict, result: Contrast, unit: str, outcome: str) -> dict:
    """A row of the table of tests, in the units that a person reads."""
    factor = 100 if unit in ("share", "difference of shares") else 1
    if factor == 100:
        unit = "percent" if unit == "share" and "control" not in test else "percentage points"
    return {
        **{column: test.get(column, "") for column in ("says", "measure", "condition", "control", "expect")},
        "margin": factor * test.get("margin", 0.0),
        "estimate": factor * result.estimate,
        "ci_low": factor * result.low,
        "ci_high": factor * result.high,
        "unit": unit,
        "seeds": result.seeds,
        "method": result.method,
        "p": np.nan if result.missing else result.p,
        "p_against": np.nan if result.missing else result.p_against,
        "outcome": outcome,
    }


def _outcome(result: Contrast, verdict: str, level: float) -> str:
    """What came of a test, one of OUTCOMES; `level` is what a claim that is not reproduced has to reach."""
    if result.missing:
        return "not measured"
    if result.p < LEVEL:
        return "as claimed" if verdict == "reproduced" or result.p < level else "as claimed, uncorrected"
    if result.p_against < LEVEL:
        return "opposite" if verdict == "contradicted" else "opposite, uncorrected"
    return "open"


def shown(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns of a table of claims or of tests for a reader: `result` is the estimate with its interval, in words."""
    text = table.assign(result=[_result(row) for row in table.itertuples()])[columns].copy()
    for column in text.columns.intersection(["p", "p_holm", "p_against"]):
        text[column] = [f"{p:.2g}" if p >= 0.001 else "< 0.001" if p < 0.001 else "" for p in text[column]]
    for column in text.columns.intersection(["margin", "seeds_needed"]):
        text[column] = ["" if pd.isna(value) else f"{value:g}" for value in text[column]]
    return text


def _result(row) -> str:
    """As in "12.3 (4.5 to 20.1) percentage points"."""
    if pd.isna(row.estimate):
        return ""
    estimate, low, high = numbers(row.estimate, row.ci_low, row.ci_high)
    return f"{estimate} {row.unit}" if pd.isna(row.ci_low) else f"{estimate} ({low} to {high}) {row.unit}"


def numbers(*values: float) -> list[str]:
    """An estimate and the ends of its interval, with as many decimals as the largest asks for."""
    decimals = 1 if max((abs(value) for value in values if value == value), default=0) >= 10 else 2
    return [f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for value in values]
