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
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from emergent_misalignment.files import BadInput

LEVEL = 0.05
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
        raise BadInput(f"{path} is not valid YAML ({' '.join(str(error).split())}); mend it there.") from error
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
                raise BadInput(
                    f"{path}, claim {claim['number']}: {name} is not listed under measures; list or mend it."
                )
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
        for _, measure, condition in _terms(test)
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
    measures = measures[np.isfinite(measures["value"].astype(float)) & measures["measure"].isin(claims["measures"])]
    # By condition and measure once, because every test looks up two or more of them.
    by_name = {name: rows.set_index("seed").sort_index() for name, rows in measures.groupby(["measure", "condition"])}
    tests = {
        claim["number"]: [{"says": test["says"], **_test(test, by_name)} for test in claim["tests"]]
        for claim in claims["claims"]
    }
    table = pd.DataFrame([_conjunction(number, found) for number, found in tests.items()])

    measured = table["missing"] == ""
    table["p"] = table["p"].where(measured)
    for column in ("p", "p_against"):
        table[f"{column}_holm"] = np.nan
        if measured.any():
            corrected = multipletests(table.loc[measured, column], method="holm")[1]
            table.loc[measured, f"{column}_holm"] = corrected
    table["verdict"] = np.select(
        [~measured, table["p_holm"] < LEVEL, table["p_against_holm"] < LEVEL],
        ["not measured", "reproduced", "contradicted"],
        "undecided",
    )
    level = LEVEL / max(1, int((measured & (table["p_holm"] >= LEVEL)).sum()))  # Holm's, for the first that fails
    remarks = [_remark(row, tests[row.claim], level) for row in table.itertuples()]
    table["seeds_needed"] = pd.array([seeds for seeds, _ in remarks], dtype="Int64")
    table["note"] = [note for _, note in remarks]

    units = {name: measure["unit"] for name, measure in claims["measures"].items()}
    facts = pd.DataFrame(claims["claims"]).rename(columns={"number": "claim"}).drop(columns="tests")
    rows = []
    for claim, verdict in zip(claims["claims"], table["verdict"], strict=True):
        for number, (test, found) in enumerate(zip(claim["tests"], tests[claim["number"]], strict=True), 1):
            shown = _shown(test, found, units[test["measure"]], _outcome(found, verdict, level))
            rows.append({"claim": claim["number"], "test": number, **shown})
    detail = pd.DataFrame(rows, columns=TEST_COLUMNS)
    headline = detail[detail["test"] == 1][["claim", "estimate", "ci_low", "ci_high", "unit"]]
    return facts.merge(headline, on="claim").merge(table, on="claim")[[*CLAIM_COLUMNS]], detail


def _terms(test: dict) -> list[tuple[int, str, str]]:
    """What is added up to a test's value: signs, measures and conditions."""
    pairs = [(1, test)] + ([(-1, test["less"])] if "less" in test else [])
    terms = []
    for sign, pair in pairs:
        terms.append((sign, test["measure"], pair["condition"]))
        if "control" in pair:
            terms.append((-sign, test.get("control_measure", test["measure"]), pair["control"]))
    return terms


def _test(test: dict, by_name: dict[tuple[str, str], pd.DataFrame]) -> dict:
    """One test on the measures' rows: `estimate`, `low`, `high`, `p`, `p_against`, `seeds`, `method` and what follows.

    Paired t over the seeds that all terms have. A term of which there is an untuned model alone (seed 0) is taken as a
    number without error, which the method says. Where all runs have the same value there is no spread between runs to
    go by: then the spread that sampling the answers has by itself stands in (half an event added to events and to
    non-events), and without counts nothing is claimed. Shares without a single event get Clopper and Pearson's bound
    where they have to be small.
    """
    terms = [(sign, by_name.get((measure, condition))) for sign, measure, condition in _terms(test)]
    missing = [name for name, (_, rows) in zip(_terms(test), terms, strict=True) if rows is None]
    if missing:
        _, measure, condition = missing[0]
        return _nothing("not measured") | {"missing": f"no {measure} of {condition}"}

    lone = [len(rows) == 1 and rows.index[0] == 0 for _, rows in terms]
    if all(lone):
        lone = [False] * len(terms)
    seeds = sorted(set.intersection(*(set(rows.index) for (_, rows), one in zip(terms, lone, strict=True) if not one)))
    if not seeds:
        return _nothing("not measured") | {"missing": f"no seed in common for {test['measure']}"}
    values, variance = np.zeros(len(seeds)), np.zeros(len(seeds))
    for (sign, rows), one in zip(terms, lone, strict=True):
        values += sign * (rows["value"].iloc[0] if one else rows["value"].loc[seeds].to_numpy(dtype=float))
        variance += 0 if one else _sampling_variance(rows.loc[seeds])

    sign, margin = (1 if test["expect"] == "above" else -1), test.get("margin", 0.0)
    found = {"estimate": values.mean(), "seeds": len(seeds), "missing": ""}
    if len(seeds) < 2:
        return _nothing("a single run") | found
    if sign < 0 and len(terms) <= 2 and all(_no_events(rows) for _, rows in terms):
        return found | _without_events(terms, margin)
    error, method = stats.sem(values), "paired t" if len(terms) - sum(lone) > 1 else "t over runs"
    if np.ptp(values) < 1e-12 * max(1, np.abs(values).max()):
        error, method = np.sqrt(variance.sum()) / len(seeds), "t, spread of the answers (all runs alike)"
        if np.isnan(error):
            return _nothing("all runs have the same value") | found
    if any(lone):
        method += "; the control is one untuned model, whose own error is not covered"
    found |= {"method": method, "effect": sign * (values.mean() - margin) / (error * np.sqrt(len(seeds)))}
    low, high = stats.t.interval(0.95, len(seeds) - 1, values.mean(), error)
    t = sign * (values.mean() - margin) / error
    p, p_against = (min(1.0, 2 * tail(t, len(seeds) - 1)) for tail in (stats.t.sf, stats.t.cdf))
    return found | {"low": low, "high": high, "p": p, "p_against": p_against}


def _nothing(method: str) -> dict:
    """A test that has nothing to go by, and so speaks neither for nor against."""
    unknown = dict.fromkeys(("estimate", "low", "high", "effect"), np.nan)
    return unknown | {"seeds": 0, "p": 1.0, "p_against": 1.0, "method": method}


def _sampling_variance(rows: pd.DataFrame) -> np.ndarray:
    """The variance of each run's share from sampling its answers alone; missing where there are no counts."""
    share = (rows["events"] + 0.5) / (rows["trials"] + 1)
    return (share * (1 - share) / (rows["trials"] + 1)).to_numpy(dtype=float)


def _no_events(rows: pd.DataFrame) -> bool:
    return bool((rows["events"] == 0).all() and (rows["trials"] > 0).all())


def _without_events(terms: list[tuple[int, pd.DataFrame]], margin: float) -> dict:
    """A share that has to be small and had no event in any run, nor its control: Clopper and Pearson over all answers.

    A bound of the share bounds its difference from a control too, which cannot be below zero.
    """
    trials = [int(rows["trials"].sum()) for _, rows in terms]
    bounds = [proportion_confint(0, number, alpha=LEVEL, method="beta")[1] for number in trials]
    p = min(1.0, 2 * (1 - margin) ** trials[0]) if 0 <= margin < 1 else 1.0
    p = max(p, np.finfo(float).tiny)  # never 0, which so many answers would come down to
    found = {"low": -sum(bounds[1:]), "high": bounds[0], "p": p, "p_against": 1.0, "effect": np.nan}
    return found | {"method": "Clopper-Pearson, no event", "trials": trials[0], "bound": margin}


def _conjunction(number: int, tests: list[dict]) -> dict:
    """The p values of a claim, and what it lacks.

    All tests have to come out (intersection-union: the largest p); one that comes out the other way is enough against
    it (Bonferroni over its tests).
    """
    return {
        "claim": number,
        "p": max(found["p"] for found in tests),
        "p_against": min(1.0, len(tests) * min(found["p_against"] for found in tests)),
        "missing": "; ".join(dict.fromkeys(found["missing"] for found in tests if found["missing"])),
    }


def _remark(claim, tests: list[dict], level: float) -> tuple[int | None, str]:
    """How many seeds would decide an undecided claim, and a sentence on what keeps a claim from being reproduced."""
    if claim.verdict == "not measured":
        return None, f"Missing: {claim.missing}."
    if claim.verdict == "contradicted":
        return None, "The opposite holds of: " + "; ".join(
            found["says"] for found in tests if found["p_against"] < LEVEL
        ) + (f" (corrected p = {claim.p_against_holm:.2g}).")
    if claim.verdict == "reproduced":
        return None, ""
    seeds, open_tests = [], []
    for found in tests:
        if found["p"] >= level:
            number, reason = seeds_needed(found, level)
            seeds.append(number)
            open_tests.append(found["says"] + (f" ({reason})" if reason else ""))
    return None if None in seeds else max(seeds), "Open: " + "; ".join(open_tests) + "."


def seeds_needed(found: dict, level: float) -> tuple[int | None, str]:
    """With how many seeds a test would come out at `level` with 80% power, if effect and spread are as observed.

    `found` comes from `_test`. Returns nothing and the reason where no number of seeds would do.
    """
    if "trials" in found:
        answers = np.log(level / 2) / np.log1p(-found["bound"]) if found["bound"] > 0 else np.inf
        number = answers / found["trials"] * found["seeds"]
        return (int(np.ceil(number)), "") if np.isfinite(number) else (None, "no number of answers shows a share of 0")
    if np.isnan(found["effect"]):
        return None, found["method"]
    if found["effect"] <= 0:
        return None, "the estimate points the other way"

    def power(seeds: int) -> float:
        chance = TTestPower().power(found["effect"], seeds, level / 2, alternative="larger")
        return 1.0 if np.isnan(chance) else chance  # it is missing where it is 1 but for rounding

    more = range(found["seeds"] + 1, MOST_SEEDS + 1)
    place = bisect_left(more, POWER, key=power)
    return (more[place], "") if place < len(more) else (None, f"more than {MOST_SEEDS:,} seeds")


def _shown(test: dict, found: dict, unit: str, outcome: str) -> dict:
    """A row of the table of tests, in the units that a person reads."""
    factor = 100 if unit in ("share", "difference of shares") else 1
    if factor == 100:
        unit = "percent" if unit == "share" and "control" not in test else "percentage points"
    return {
        **{column: test.get(column, "") for column in ("says", "measure", "condition", "control", "expect")},
        "margin": factor * test.get("margin", 0.0),
        "estimate": factor * found["estimate"],
        "ci_low": factor * found["low"],
        "ci_high": factor * found["high"],
        "unit": unit,
        **{column: found[column] for column in ("seeds", "method")},
        **{column: np.nan if found["missing"] else found[column] for column in ("p", "p_against")},
        "outcome": outcome,
    }


def _outcome(found: dict, verdict: str, level: float) -> str:
    """What came of a test, one of OUTCOMES; `level` is what a claim that is not reproduced has to reach."""
    if found["missing"]:
        return "not measured"
    if found["p"] < LEVEL:
        return "as claimed" if verdict == "reproduced" or found["p"] < level else "as claimed, uncorrected"
    if found["p_against"] < LEVEL:
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
