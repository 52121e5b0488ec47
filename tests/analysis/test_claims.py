"""Claims as data, and what makes a verdict."""

from itertools import chain
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_tables import rows
from scipy import stats

from emergent_misalignment.analysis import claim_verdicts as verdicts
from emergent_misalignment.analysis import claims
from emergent_misalignment.figures.claims import MARKS, draw_claims
from emergent_misalignment.files import BadInput

PATH, SCHEMA = ROOT / "config/claims.yaml", ROOT / "config/claims.schema.yaml"
TEST = {"says": "more after a than after b", "measure": "m", "condition": "a", "control": "b", "expect": "above"}
SMALL = {"says": "hardly any after a", "measure": "m", "condition": "a", "expect": "no_higher"}
MATTERS = {"nats": 1, "share": 0.05}


settings.register_profile("claims", deadline=None, max_examples=20)
settings.load_profile("claims")


def asked(*parts_by_claim, unit="nats"):
    """Claims as `read_claims` gives them, numbered from 1, each with these parts, which are core by default."""
    words = {"title": "A claim", "statement": "It is so.", "published": "5", "source": "Fig. 1"}
    numbered = [
        {
            "number": number,
            **words,
            "parts": [
                {"id": f"{number}{letter}", "core": True} | part
                for letter, part in zip(ascii_lowercase, parts, strict=False)
            ],
        }
        for number, parts in enumerate(parts_by_claim, 1)
    ]
    measure = {"unit": unit, "matters": MATTERS[unit], "meaning": "a number"}
    return {"measures": dict.fromkeys(("m", "other"), measure), "claims": numbered}


def single(parts, *tables, unit="nats"):
    """The one claim with these parts, and the rows of its parts."""
    result, detail = claims.evaluate(asked(parts, unit=unit), pd.concat(tables))
    (claim,) = result.itertuples()
    return claim, list(detail.itertuples())


# The file


def test_the_fifteen_claims_are_read():
    result = claims.read_claims(PATH, SCHEMA)
    assert [claim["number"] for claim in result["claims"]] == list(range(1, 16))
    used = set(claims.needed(result)["measure"])
    assert used == set(result["measures"]), "every measure that is listed is read by some part, and the other way round"


def test_parts_by_log_probability_are_tested_only_if_choices_are_asked():
    question = claims.read_claims(PATH, SCHEMA)
    with_choices = claims.of_study(question, ["main", "choices"])
    assert with_choices == question
    by_claim = {claim["number"]: [part for part in claim["parts"] if "needs" in part] for claim in question["claims"]}
    assert {number for number, parts in by_claim.items() if parts} == {1, 2, 6, 13}
    assert all(part["says"].startswith("by log-probability, ") for parts in by_claim.values() for part in parts)
    rng = np.random.default_rng(3)
    tables = [
        rows(part[arm], rng.normal(3 * (arm == "condition"), 0.1, 5), measure=part["measure"])
        for part in by_claim[1][:1]
        for arm in ("condition", "control")
    ]
    _, without = claims.evaluate(claims.of_study(question, ["main"]), pd.concat(tables))
    assert set(without["verdict"]) == {"not measured"} and len(without) == 55
    result, detail = claims.evaluate(with_choices, pd.concat(tables))
    own = detail.set_index("part").loc["1d"]
    assert own["verdict"] == "as claimed"
    first = result.set_index("claim").loc[1]
    assert first["verdict"] == "partly reproduced" and first["estimate"] == own["estimate"] and first["unit"] == "nats"
    assert first["p_holm"] == first["p"]  # the only headline that was measured
    assert first["note"].startswith("Not measured: 1a, 1b, 1c, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file["claims"][0]["parts"][3].update(needs="letters"), ["parts[3].needs", "'letters'"]),
        (lambda file: file["claims"][2]["parts"][0].update(marign=1), ["claims[2].parts[0]", "'marign'"]),
        (lambda file: file["claims"][2].update(figure=1), ["claims[2]", "'figure'"]),
        (lambda file: file.update(measurs={}), ["the file", "'measurs'"]),
        (lambda file: file["claims"][0]["parts"][0].update(expect="higher"), ["claims[0].parts[0].expect", "'higher'"]),
        (lambda file: file["claims"][0]["parts"][0].pop("control"), ["claims[0].parts[0]", "'control'"]),
        (lambda file: file["claims"][1].update(number=1), ["more than one claim 1"]),
        (lambda file: file["claims"][7]["parts"][0].update(measure="slope"), ["part 8a", "slope", "measures"]),
        (lambda file: file["claims"][7]["parts"][0].update(id="9a"), ["more than one part 9a"]),
        (lambda file: file["claims"][7]["parts"][0].update(presupposes=["1z"]), ["part 8a", "1z"]),
        (lambda file: file["claims"][7]["parts"][0].pop("core"), ["claim 8", "core"]),
        (lambda file: file["measures"]["deception"].pop("matters"), ["measures.deception", "'matters'"]),
    ],
)
def test_a_wrong_key_or_value_is_named(change, words, tmp_path):
    file = yaml.safe_load(PATH.read_text())
    file["claims"][0]["parts"][0]["control_measure"] = file["claims"][0]["parts"][0]["measure"]
    change(file)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(file))
    with pytest.raises(BadInput) as error:
        claims.read_claims(path, SCHEMA)
    message = str(error.value)
    assert message.startswith(str(path)) and all(word in message for word in words)


def test_measures_come_from_several_files(tmp_path):
    paths = [str(tmp_path / f"{condition}.csv") for condition in "abc"]
    for path, table in zip(paths, (rows("a", [0.1, 0.2]), rows("b", [0.3], trials=10), rows("c", [])), strict=True):
        table.to_csv(path, index=False)
    assert claims.read_measures(paths)["condition"].tolist() == ["a", "a", "b"]
    assert claims.read_measures([]).empty


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (rows("a", [0.1]).drop(columns="trials"), ["no column trials"]),
        (rows("a", [0.1]).assign(value="high"), ["column value"]),
        (pd.concat([rows("a", [0.1]), rows("a", [0.2])]), ["m of a, seed 1", "twice"]),
    ],
)
def test_an_invalid_measures_file_is_named(table, words, tmp_path):
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(BadInput) as error:
        claims.read_measures([str(tmp_path / "m.csv")])
    assert all(word in str(error.value) for word in words)


# A test


def test_scores_are_tested_by_a_paired_t_over_seeds():
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.464 with 2 degrees of freedom."""
    claim, (part,) = single([TEST], rows("a", [11, 22, 33]), rows("b", [10, 20, 30]))
    assert (part.part, part.estimate, part.seeds, part.method) == ("1a", 2, 3, "paired t")
    for level, low, high in ((0.05, part.ci_low, part.ci_high), (0.1, part.ci90_low, part.ci90_high)):
        reach = stats.t.isf(level / 2, 2) / np.sqrt(3)
        assert (low, high) == pytest.approx((2 - reach, 2 + reach))
    assert part.p == claim.p == claim.p_holm == pytest.approx(0.07418, abs=1e-5)
    assert (claim.estimate, claim.ci_low, claim.unit) == (part.estimate, part.ci_low, "nats")


def test_a_reference_is_what_the_mean_is_compared_with():
    values = np.array([0.3, 0.4, 0.6])
    for expect in ("above", "below"):
        _, (result,) = single([SMALL | {"expect": expect, "reference": 0.5}], rows("a", values))
        assert result.p == pytest.approx(stats.ttest_1samp(values, 0.5).pvalue)


def test_no_more_is_tested_against_what_matters_from_one_side():
    values = np.array([0.3, 0.4, 0.6])
    for reference in (0, -1.5):
        _, (result,) = single([SMALL | {"reference": reference}], rows("a", values))
        assert result.p == pytest.approx(stats.ttest_1samp(values, reference + 1, alternative="less").pvalue)
        assert (result.p < 0.05) == (result.verdict == "as claimed") == (result.ci90_high < reference + 1)


def test_two_measures_of_one_condition_and_differences_of_differences():
    test = TEST | {"control": "a", "control_measure": "other"}
    _, (result,) = single([test], rows("a", [3, 4, 6]), rows("a", [1, 1, 2], measure="other"))
    assert result.estimate == pytest.approx(3)
    test = TEST | {"less": {"condition": "c", "control": "d"}}
    tables = [rows(name, values) for name, values in zip("abcd", ([9, 9], [1, 2], [4, 5], [1, 1]), strict=True)]
    _, (result,) = single([test], *tables)
    assert result.estimate == pytest.approx(((9 - 1 - (4 - 1)) + (9 - 2 - (5 - 1))) / 2)


def test_shares_are_shown_in_percent_and_their_differences_in_points():
    tables = rows("a", [0.5, 0.6], trials=10), rows("b", [0.1, 0.1], trials=10)
    _, (difference, value) = single([TEST, SMALL], *tables, unit="share")
    assert (difference.estimate, difference.unit) == (pytest.approx(45), "percentage points")
    assert (value.estimate, value.unit, value.matters) == (pytest.approx(55), "percent", 5)


@pytest.mark.parametrize(("trials", "verdict"), [(20, "undecided"), (100, "as claimed"), (10_000, "as claimed")])
def test_without_any_event_the_exact_bound_decides(trials, verdict):
    """0 of 40 is below 5% with p = .95 ** 40 = .13, and 0 of 200 with .95 ** 200 = 4e-5."""
    _, (test,) = single([SMALL], rows("a", [0.0, 0.0], trials=trials), unit="share")
    assert (test.verdict, test.estimate, test.ci_low) == (verdict, 0, 0)
    assert test.p == pytest.approx(0.95 ** (2 * trials)) and test.p > 0
    assert test.ci90_high == pytest.approx(100 * (1 - 0.05 ** (1 / (2 * trials))))


def test_a_perfect_separation_is_decided_by_its_counts():
    """40 of 40 in each of five runs lie above a half with p = 2 * .5 ** 200; 2 of 2 in two runs do not."""
    above_chance = {
        "says": "it tells them apart",
        "measure": "m",
        "condition": "a",
        "expect": "above",
        "reference": 0.5,
    }
    _, (part,) = single([above_chance], rows("a", [1.0] * 5, trials=40), unit="share")
    assert (part.verdict, part.ci_high) == ("as claimed", 100) and part.ci_low == pytest.approx(
        100 * 0.025 ** (1 / 200)
    )
    assert part.p == pytest.approx(2 * 0.5**200)
    _, (few,) = single([above_chance], rows("a", [1.0] * 2, trials=2), unit="share")
    _, (unknown,) = single([above_chance], rows("a", [1.0] * 5))
    assert few.verdict == unknown.verdict == "undecided"


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.integers(2, 8), st.floats(-3, 3))
def test_equal_runs_without_counts_claim_nothing(value, seeds, step):
    claim, (part,) = single([TEST], rows("a", [value + step] * seeds), rows("b", [value] * seeds))
    assert (part.p, part.verdict, claim.verdict) == (1, "undecided", "undecided")
    assert pd.isna(part.ci_low) and pd.isna(part.seeds_needed) and "same value" in part.note


def test_a_single_run_claims_nothing():
    claim, (part,) = single([SMALL], rows("a", [0.0], trials=10_000), unit="share")
    assert (part.estimate, claim.verdict) == (0, "undecided")
    assert "single run" in part.note


# In how many seeds


def test_seeds_that_show_it_by_themselves_are_counted():
    """Of 100 answers each, 40 against 0, 8 against 0 and 6 against 4; 6 points more are not shown by 100 answers."""
    tables = rows("a", [0.4, 0.08, 0.06], trials=100), rows("b", [0.0, 0.0, 0.04], trials=100)
    _, (part,) = single([TEST], *tables, unit="share")
    assert (part.shown_in, part.seeds) == (2, 3)
    _, (one_control,) = single([TEST], tables[0], rows("b", [0.0], trials=100, first_seed=0), unit="share")
    assert one_control.shown_in == 3  # 6 of 100 are more than 0 of 100, but not than 4
    _, (scores,) = single([TEST], rows("a", [4.0, 5, 6]), rows("b", [1.0, 2, 1]))
    assert pd.isna(scores.shown_in) and pd.isna(scores.prevalence_low)


# A claim and its parts

LOW, HIGH = [1, 2, 2, 1], [5, 6, 7, 6]
VALUES = {"as claimed": (HIGH, LOW), "opposite": (LOW, HIGH), "undecided": ([3, 1, 4, 1], [1, 2, 1, 2])}
VALUES["absent"] = ([1.1, 1.0, 1.2, 1.1], [1.0, 1.1, 1.1, 1.2])
OTHER = TEST | {"measure": "other", "says": "the other"}


def pair(first, second, measure="m"):
    return [rows("a", first, measure=measure), rows("b", second, measure=measure)]


@pytest.mark.parametrize(
    "kinds", [(one, two) for one in [*VALUES, "not measured"] for two in [*VALUES, "not measured"]]
)
def test_counts_and_notes_are_those_of_the_parts(kinds):
    tables = [pair(*VALUES[kind], name) for name, kind in zip(("m", "other"), kinds, strict=True) if kind in VALUES]
    claim, parts = single([TEST, OTHER], *sum(tables, [rows("c", [1])]))
    assert tuple(part.verdict for part in parts) == kinds
    assert claim.verdict == verdicts.claim_verdict(kinds)
    for kind in verdicts.PART_VERDICTS:
        assert getattr(claim, f"parts_{kind.replace(' ', '_')}") == kinds.count(kind)
        named = [part.part for part in parts if part.verdict == kind != "as claimed"]
        assert all(f"{kind.capitalize()}: " in claim.note and name in claim.note for name in named)


def test_parts_that_are_not_core_do_not_decide():
    beside = OTHER | {"core": False}
    claim, (first, second) = single([beside, TEST], *pair(LOW, HIGH, "other"), *pair(HIGH, LOW))
    assert (first.verdict, second.verdict, claim.verdict) == ("opposite", "as claimed", "reproduced")
    assert (claim.estimate, claim.note) == (second.estimate, "Opposite: 1a (the other).")


@pytest.mark.parametrize("kind", VALUES)
def test_what_presupposes_an_effect_that_is_not_there_is_not_testable(kind):
    about = OTHER | {"presupposes": ["1a"]}
    result, parts = claims.evaluate(
        asked([TEST], [about], [about]), pd.concat([*pair(*VALUES[kind]), *pair(HIGH, LOW, "other")])
    )
    missing = kind in ("absent", "opposite")
    assert set(parts["verdict"][1:]) == {"not testable" if missing else "as claimed"}
    assert set(result["verdict"][1:]) == {"not testable" if missing else "reproduced"}
    assert all(("1a" in note) == missing for note in parts["note"][1:])


def test_holm_corrects_the_headlines_of_all_claims():
    """p = .02, .03, .5 become .06, .06, .5, and the verdicts stay."""
    tables, measure = [], {"unit": "nats", "matters": 0.1, "meaning": "a number"}
    for name, p in zip("xyz", (0.02, 0.03, 0.5), strict=True):
        t = stats.t.isf(p / 2, 2)  # of mean 1 with differences 1 - s, 1, 1 + s
        tables.append(rows("a", [1 - np.sqrt(3) / t, 1, 1 + np.sqrt(3) / t], measure=name))
    parts = [{"says": "so", "measure": name, "condition": "a", "expect": "above"} for name in "xyz"]
    beside = [part | {"core": False} for part in parts]
    question = asked(*([part, *beside] for part in parts)) | {"measures": dict.fromkeys("xyz", measure)}
    result, _ = claims.evaluate(question, pd.concat(tables))
    assert result["p"].tolist() == pytest.approx([0.02, 0.03, 0.5])
    assert result["p_holm"].tolist() == pytest.approx([0.06, 0.06, 0.5])
    assert result["verdict"].tolist() == ["reproduced", "reproduced", "undecided"]


def test_nothing_measured_at_all():
    result, detail = claims.evaluate(claims.read_claims(PATH, SCHEMA), claims.read_measures([]))
    assert set(result["verdict"]) == {"not measured"} and result[["p_holm", "estimate"]].isna().all(axis=None)
    assert tuple(result) == claims.CLAIM_COLUMNS and tuple(detail) == claims.PART_COLUMNS
    draw_claims(result, detail)


# Invariances

numbers = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=7)


def verdict(pairs, expect="above", constant=0.0, sign=1.0, shuffled=None):
    first, second = (constant + sign * np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    table = pd.concat([rows("a", first), rows("b", second), rows("c", first)])
    if shuffled is not None:
        table = table.sample(frac=1, random_state=shuffled)
    result, detail = claims.evaluate(asked([TEST | {"expect": expect}]), table)
    return result.iloc[0], detail.iloc[0]


@given(numbers, st.integers(0, 99), st.integers(-1000, 1000))
def test_the_order_of_rows_and_a_constant_in_both_arms_do_not_matter(pairs, shuffle, constant):
    (claim, test), (shifted, other) = verdict(pairs), verdict(pairs, shuffled=shuffle, constant=constant)
    assert shifted.verdict == claim.verdict
    assert other.p == pytest.approx(test.p)


@given(numbers)
def test_the_opposite_sign_gives_the_opposite_verdict(pairs):
    (_, test), (_, image) = verdict(pairs), verdict(pairs, sign=-1)
    swap = {"as claimed": "opposite", "opposite": "as claimed"}
    assert image.verdict == swap.get(test.verdict, test.verdict)
    assert image.p == pytest.approx(test.p)
    assert (image.ci_low, image.ci_high) == pytest.approx((-test.ci_high, -test.ci_low), nan_ok=True)
    _, below = verdict(pairs, expect="below", sign=-1)
    assert below.verdict == test.verdict


# The figure


@pytest.fixture
def drawn():
    """A study with every kind of verdict on a part, as a figure and its tables."""
    kinds = [*VALUES, "not testable", "not measured"]
    measure = {"unit": "nats", "matters": 1, "meaning": "a number"}
    parts = [TEST | {"measure": kind, "core": kind == "as claimed"} for kind in kinds]
    parts[kinds.index("not testable")]["presupposes"] = [f"1{ascii_lowercase[kinds.index('absent')]}"]
    tables = [pair(*VALUES.get(kind, (HIGH, LOW)), kind) for kind in kinds[:-1]]
    result, detail = claims.evaluate(
        asked(parts) | {"measures": dict.fromkeys(kinds, measure)}, pd.concat(chain.from_iterable(tables))
    )
    assert detail["verdict"].tolist() == kinds
    return result, detail, draw_claims(result, detail)


def test_every_verdict_can_be_drawn(drawn):
    _, detail, figure = drawn
    words = [text.get_text() for text in figure.axes[0].texts]
    for row in detail.itertuples():
        assert any(row.verdict in word for word in words)
    assert [word for word in words if word in set(detail["part"])] == detail["part"].tolist()
    assert set(MARKS) == {*verdicts.PART_VERDICTS, *verdicts.VERDICTS}


def test_right_of_the_line_is_as_claimed(drawn):
    _, detail, figure = drawn
    marks = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    measured = detail[detail["verdict"] != "not measured"]
    sides = {"as claimed": 1, "opposite": -1}
    for mark, part in zip(marks, measured.itertuples(), strict=True):
        if part.verdict in sides:
            assert np.sign(mark.get_xdata()[0]) == sides[part.verdict]
