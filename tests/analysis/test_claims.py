"""Claims as data, and what makes a verdict."""

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

from emergent_misalignment.analysis import claims
from emergent_misalignment.figures.claims import draw_claims
from emergent_misalignment.files import BadInput

PATH, SCHEMA = ROOT / "config/claims.yaml", ROOT / "config/claims.schema.yaml"
TEST = {"says": "more after a than after b", "measure": "m", "condition": "a", "control": "b", "expect": "above"}
SMALL = {"says": "hardly any after a", "measure": "m", "condition": "a", "expect": "at_most", "margin": 0.05}


settings.register_profile("claims", deadline=None, max_examples=20)
settings.load_profile("claims")


def asked(*parts_by_claim, unit="nats"):
    """Claims as `read_claims` gives them, numbered from 1, each with these parts."""
    words = {"title": "A claim", "statement": "It is so.", "published": "5", "source": "Fig. 1"}
    numbered = [{"number": number, **words, "parts": parts} for number, parts in enumerate(parts_by_claim, 1)]
    return {"measures": {name: {"unit": unit, "meaning": "a number"} for name in ("m", "other")}, "claims": numbered}


def single(parts, *tables, unit="nats"):
    """The one claim with these parts, and the rows of its parts."""
    result, detail = claims.evaluate(asked(parts, unit=unit), pd.concat(tables))
    (claim,) = result.itertuples()
    return claim, list(detail.itertuples())


# The file


def test_the_thirteen_claims_are_read():
    result = claims.read_claims(PATH, SCHEMA)
    assert [claim["number"] for claim in result["claims"]] == list(range(1, 14))
    used = set(claims.needed(result)["measure"])
    assert used == set(result["measures"]), "every measure that is listed is read by some part, and the other way round"


def test_parts_of_a_study_without_choices_are_those_of_the_published_results():
    parts = [
        (f"{claim['number']}{letter}", *(part.get(name, "") for name in ("says", "measure", "condition", "control")))
        for claim in claims.of_study(claims.read_claims(PATH, SCHEMA), ["main", "in_distribution"])["claims"]
        for letter, part in zip(ascii_lowercase, claim["parts"], strict=False)
    ]
    columns = ["part", "says", "measure", "condition", "control"]
    kept = pd.read_csv(ROOT / "docs/results/claim_parts.csv", dtype=str, usecols=columns)[columns].fillna("")
    assert parts == list(kept.itertuples(index=False, name=None))


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
    assert set(without["verdict"]) == {"not measured"} and len(without) == 43
    result, detail = claims.evaluate(with_choices, pd.concat(tables))
    own = detail.set_index("part").loc["1d"]
    assert own["verdict"] == "reproduced" and own["p_holm"] == own["p"]  # the only part that was measured
    first = result.set_index("claim").loc[1]
    assert first["verdict"] == "partly reproduced" and first["estimate"] == own["estimate"] and first["unit"] == "nats"
    assert first["note"].startswith("Not measured: 1a, 1b, 1c, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file["claims"][0]["parts"][0].update(needs="choices"), ["claim 1", "needs", "after"]),
        (
            lambda file: file["claims"][2]["parts"].insert(0, file["claims"][0]["parts"][3]),
            ["claim 3", "needs", "after"],
        ),
        (lambda file: file["claims"][0]["parts"][3].update(needs="letters"), ["parts[3].needs", "'letters'"]),
        (lambda file: file["claims"][2]["parts"][0].update(marign=1), ["claims[2].parts[0]", "'marign'"]),
        (lambda file: file["claims"][2].update(figure=1), ["claims[2]", "'figure'"]),
        (lambda file: file.update(measurs={}), ["the file", "'measurs'"]),
        (lambda file: file["claims"][0]["parts"][0].update(expect="higher"), ["claims[0].parts[0].expect", "'higher'"]),
        (lambda file: file["claims"][0]["parts"][0].update(expect="at_most"), ["claims[0].parts[0]", "'margin'"]),
        (lambda file: file["claims"][0]["parts"][0].pop("control"), ["claims[0].parts[0]", "'control'"]),
        (lambda file: file["claims"][1].update(number=1), ["more than one claim 1"]),
        (lambda file: file["claims"][7]["parts"][0].update(measure="slope"), ["claim 8", "slope", "measures"]),
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
    reach = 4.302653 / np.sqrt(3)
    assert (part.ci_low, part.ci_high) == pytest.approx((2 - reach, 2 + reach))
    assert part.p == part.p_holm == claim.p_holm == pytest.approx(0.07418, abs=1e-5)
    assert (claim.estimate, claim.ci_low, claim.unit) == (part.estimate, part.ci_low, "nats")


@pytest.mark.parametrize("expect", ["above", "below", "at_most"])
def test_a_margin_is_what_the_mean_is_compared_with(expect):
    values = np.array([0.3, 0.4, 0.6])
    test = SMALL | {"expect": expect, "margin": 0.5}
    _, (result,) = single([test], rows("a", values))
    assert result.p == pytest.approx(stats.ttest_1samp(values, 0.5).pvalue)


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
    assert (value.estimate, value.unit, value.margin) == (pytest.approx(55), "percent", 5)


@pytest.mark.parametrize(("trials", "verdict"), [(20, "undecided"), (100, "reproduced"), (10_000, "reproduced")])
def test_without_any_event_the_exact_bound_decides(trials, verdict):
    """0 of 40 is below 5% with p = 2 * .95 ** 40 = .26, and 0 of 200 with 2 * .95 ** 200 = 7e-5."""
    claim, (test,) = single([SMALL], rows("a", [0.0, 0.0], trials=trials), unit="share")
    assert (claim.verdict, test.estimate, test.ci_low) == (verdict, 0, 0)
    assert test.p == pytest.approx(2 * 0.95 ** (2 * trials)) and test.p > 0
    assert test.ci_high == pytest.approx(100 * (1 - 0.025 ** (1 / (2 * trials))))
    assert (test.p < 0.05) == (test.ci_high < 5)


def test_without_any_event_the_bound_holds_for_the_difference_too():
    test = SMALL | {"control": "b"}
    for control in (rows("b", [0.0, 0.0], trials=50), rows("b", [0.0], trials=50, first_seed=0)):
        _, (result,) = single([test], rows("a", [0.0, 0.0], trials=100), control, unit="share")
        assert result.p == pytest.approx(2 * 0.95**200)
        assert result.ci_low < 0 < result.ci_high


def test_a_perfect_separation_is_decided_by_its_counts():
    """40 of 40 in each of five runs lie above a half with p = 2 * .5 ** 200; 2 of 2 in two runs do not."""
    above_chance = {"says": "it tells them apart", "measure": "m", "condition": "a", "expect": "above", "margin": 0.5}
    claim, (part,) = single([above_chance], rows("a", [1.0] * 5, trials=40))
    assert (claim.verdict, part.ci_high) == ("reproduced", 1) and part.ci_low == pytest.approx(0.025 ** (1 / 200))
    assert part.p == pytest.approx(2 * 0.5**200)
    few, _ = single([above_chance], rows("a", [1.0] * 2, trials=2))
    unknown, _ = single([above_chance], rows("a", [1.0] * 5))
    assert few.verdict == unknown.verdict == "undecided"


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.integers(2, 8), st.floats(-3, 3))
def test_equal_runs_without_counts_claim_nothing(value, seeds, step):
    claim, (part,) = single([TEST], rows("a", [value + step] * seeds), rows("b", [value] * seeds))
    assert (part.p, part.verdict, claim.verdict) == (1, "undecided", "undecided")
    assert pd.isna(part.ci_low) and pd.isna(part.seeds_needed) and "same value" in part.note


def test_a_single_run_claims_nothing():
    claim, (part,) = single([SMALL], rows("a", [0.0], trials=10_000), unit="share")
    assert (part.estimate, part.p, claim.verdict) == (0, 1, "undecided")
    assert "single run" in part.note


# A claim and its parts

LOW, HIGH = [1, 2, 2, 1], [5, 6, 7, 6]
OTHER = TEST | {"measure": "other", "says": "the other"}


def pair(first, second, measure="m"):
    return [rows("a", first, measure=measure), rows("b", second, measure=measure)]


def test_each_part_has_a_verdict_and_the_claim_a_summary():
    open_ones = pair([3, 1, 4, 1], [1, 2, 1, 2], "other")
    claim, (first, second) = single([TEST, OTHER], *pair(HIGH, LOW), *open_ones)
    assert (first.part, first.verdict, second.part, second.verdict) == ("1a", "reproduced", "1b", "undecided")
    assert (claim.verdict, claim.parts_reproduced, claim.parts_undecided) == ("partly reproduced", 1, 1)
    assert claim.note == "Undecided: 1b."


def test_a_contradicted_part_of_a_partly_reproduced_claim_is_said_in_words():
    claim, (_, second) = single([TEST, OTHER], *pair(HIGH, LOW), *pair(LOW, HIGH, "other"))
    assert (claim.verdict, second.verdict, claim.parts_contradicted) == ("partly reproduced", "contradicted", 1)
    assert claim.note == "Contradicted: 1b (the other)."
    assert pd.isna(second.seeds_needed)


def test_a_part_that_was_not_measured_leaves_the_others_their_verdicts():
    claim, (first, second) = single([OTHER, TEST], *pair(HIGH, LOW))
    assert (first.verdict, first.note) == ("not measured", "Missing: no other of a.")
    assert second.verdict == "reproduced" and second.p_holm == second.p and pd.isna(first.p)
    assert (claim.verdict, claim.parts_not_measured) == ("partly reproduced", 1)
    assert (claim.estimate, claim.p_holm) == (second.estimate, second.p_holm)


@pytest.mark.parametrize(
    ("kinds", "summary"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "undecided"], "partly reproduced"),
        (["reproduced", "contradicted"], "partly reproduced"),
        (["reproduced", "not measured"], "partly reproduced"),
        (["undecided", "contradicted"], "contradicted"),
        (["not measured", "contradicted"], "contradicted"),
        (["undecided", "not measured"], "undecided"),
        (["not measured", "not measured"], "not measured"),
    ],
)
def test_the_summary_of_a_claim(kinds, summary):
    """Whichever part comes first; and the counts are those of the parts."""
    values = {"reproduced": (HIGH, LOW), "contradicted": (LOW, HIGH), "undecided": ([3, 1, 4, 1], [1, 2, 1, 2])}
    for order in (kinds, kinds[::-1]):
        tables = [pair(*values[kind], name) for name, kind in zip(("m", "other"), order, strict=True) if kind in values]
        table = pd.concat(sum(tables, [rows("c", [1])]))
        result, parts = claims.evaluate(asked([TEST, OTHER]), table)
        assert parts["verdict"].tolist() == order and result["verdict"].tolist() == [summary]
        for kind in claims.PART_VERDICTS:
            assert result[f"parts_{kind.replace(' ', '_')}"].tolist() == [order.count(kind)]


def test_holm_corrects_over_the_parts_of_all_claims():
    """p = .02, .03, .5 become .06, .06, .5: nothing is left of two results that look good by themselves."""
    tables, measured = [], {name: {"unit": "nats", "meaning": "a number"} for name in "xyz"}
    for name, p in zip("xyz", (0.02, 0.03, 0.5), strict=True):
        t = stats.t.isf(p / 2, 2)  # of mean 1 with differences 1 - s, 1, 1 + s
        tables.append(rows("a", [1 - np.sqrt(3) / t, 1, 1 + np.sqrt(3) / t], measure=name))
    parts = [{"says": "so", "measure": name, "condition": "a", "expect": "above"} for name in "xyz"]
    for split in ([parts[:1], parts[1:]], [[part] for part in parts], [parts]):
        result, detail = claims.evaluate(asked(*split) | {"measures": measured}, pd.concat(tables))
        assert detail["p"].tolist() == pytest.approx([0.02, 0.03, 0.5])
        assert detail["p_holm"].tolist() == pytest.approx([0.06, 0.06, 0.5])
        assert set(detail["verdict"]) == set(result["verdict"]) == {"undecided"}
        assert [note.startswith("By its own interval as claimed") for note in detail["note"]] == [True, True, False]


def test_nothing_measured_at_all():
    result, detail = claims.evaluate(claims.read_claims(PATH, SCHEMA), claims.read_measures([]))
    assert set(result["verdict"]) == {"not measured"} and result[["p_holm", "estimate"]].isna().all(axis=None)
    assert tuple(result) == claims.CLAIM_COLUMNS and tuple(detail) == claims.PART_COLUMNS
    draw_claims(result, detail)


# Seeds needed


def test_the_number_of_seeds_gives_80_percent_power():
    """With the observed effect and spread, 80% of studies with that many seeds decide, and fewer with one seed less."""
    _, (part,) = single([TEST], rows("a", [1.9, 0.1, 1.2, -0.4]), rows("b", [0.0] * 4))
    assert part.verdict == "undecided"
    effect = 0.7 / np.std([1.9, 0.1, 1.2, -0.4], ddof=1)
    rng = np.random.default_rng(0)
    for seeds, enough in ((part.seeds_needed, True), (part.seeds_needed - 2, False)):
        p = stats.ttest_1samp(rng.normal(effect, 1, (20_000, seeds)), 0, axis=1, alternative="greater").pvalue
        assert ((p < 0.025).mean() > 0.79) == enough


def test_no_number_of_seeds_for_an_estimate_on_the_other_side():
    _, (part,) = single([TEST], rows("a", [0, 1, 0]), rows("b", [1, 1, 0]))
    assert part.verdict == "undecided" and pd.isna(part.seeds_needed)
    assert part.note == "The estimate points the other way."


def test_the_number_of_seeds_without_any_event():
    """2 * .95 ** answers < .05 needs 72 answers, which at 20 a seed are 4 seeds."""
    _, (part,) = single([SMALL], rows("a", [0.0, 0.0], trials=20), unit="share")
    assert part.seeds_needed == 4


# Invariances and error rates

numbers = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=7)


def verdict(pairs, expect="above", constant=0.0, sign=1.0, shuffled=None):
    first, second = (constant + sign * np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    table = pd.concat([rows("a", first), rows("b", second), rows("c", first)])
    if shuffled is not None:
        table = table.sample(frac=1, random_state=shuffled)
    result, detail = claims.evaluate(asked([TEST | {"expect": expect}]), table)
    return result.iloc[0], detail.iloc[0]


@given(numbers, st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(pairs, shuffle):
    (one, _), (other, _) = verdict(pairs), verdict(pairs, shuffled=shuffle)
    pd.testing.assert_series_equal(one, other)


@given(numbers)
def test_the_opposite_sign_gives_the_opposite_verdict(pairs):
    (claim, test), (mirrored, image) = verdict(pairs), verdict(pairs, sign=-1)
    swap = {"reproduced": "contradicted", "contradicted": "reproduced", "undecided": "undecided"}
    assert mirrored.verdict == swap[claim.verdict]
    assert image.p == pytest.approx(test.p)
    assert (image.ci_low, image.ci_high) == pytest.approx((-test.ci_high, -test.ci_low), nan_ok=True)
    below, _ = verdict(pairs, expect="below", sign=-1)
    assert below.verdict == claim.verdict


@given(numbers, st.integers(-1000, 1000))
def test_a_constant_in_both_arms_does_not_matter(pairs, constant):
    (claim, test), (shifted, other) = verdict(pairs), verdict(pairs, constant=constant)
    assert shifted.verdict == claim.verdict
    assert other.p == pytest.approx(test.p)


@given(numbers)
def test_p_and_interval_say_the_same(pairs):
    claim, part = verdict(pairs)
    if part.ci_low == part.ci_low and abs(part.ci_low) > 1e-9 and abs(part.ci_high) > 1e-9:
        assert (part.p < 0.05) == (part.ci_low > 0 or part.ci_high < 0)
        assert (claim.verdict == "reproduced") == (part.ci_low > 0)


def study(values, measures):
    """Measures of conditions a and b: `values` has the shape [measures, 2, seeds]."""
    index = pd.MultiIndex.from_product(
        [measures, list("ab"), range(1, values.shape[2] + 1)], names=["measure", "condition", "seed"]
    )
    return pd.DataFrame({"value": values.ravel(), "events": np.nan, "trials": np.nan}, index).reset_index()


def test_the_error_rate_of_single_tests():
    """300 tests in which nothing is so: 2.5% come out as claimed, 2.5% the other way (standard error 0.9%)."""
    measures = [f"m{number}" for number in range(300)]
    question = asked(*([TEST | {"measure": measure}] for measure in measures))
    question["measures"] = {measure: {"unit": "nats"} for measure in measures}
    _, tests = claims.evaluate(question, study(np.random.default_rng(0).normal(size=(300, 2, 5)), measures))
    for side in (tests["estimate"] > 0, tests["estimate"] < 0):
        assert ((tests["p"] < 0.05) & side).mean() == pytest.approx(0.025, abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize("per_claim", [2])
def test_the_error_rate_of_studies(per_claim):
    """100 studies of six claims: the share in which any verdict is not `undecided` (standard error 2%)."""
    rng, measures = np.random.default_rng(1), [f"m{number}" for number in range(6 * per_claim)]
    tests = [TEST | {"measure": measure} for measure in measures]
    question = asked(*(tests[place : place + per_claim] for place in range(0, len(tests), per_claim)))
    question["measures"] = {measure: {"unit": "nats"} for measure in measures}
    wrong = [
        (
            claims.evaluate(question, study(rng.normal(size=(len(measures), 2, 5)), measures))[0]["verdict"]
            != "undecided"
        ).any()
        for _ in range(100)
    ]
    assert 0.01 <= np.mean(wrong) <= 0.1


def test_a_clear_effect_is_found_and_a_rate_at_its_margin_is_not_called_small():
    rng = np.random.default_rng(2)
    result = {"effect": 0, "small": 0}
    for _ in range(15):
        shares = 1 / (1 + np.exp(-rng.normal([[-0.4], [-5]], 0.4, (2, 5))))
        events = rng.binomial(800, shares) / 800
        tables = [rows(name, share, trials=800) for name, share in zip("ab", events, strict=True)]
        result["effect"] += single([TEST], *tables, unit="share")[0].verdict == "reproduced"
        at_margin = rng.binomial(800, 0.05 * rng.uniform(0.8, 1.2, 5)) / 800
        result["small"] += single([SMALL], rows("a", at_margin, trials=800), unit="share")[0].verdict == "reproduced"
    assert result["effect"] == 15
    assert result["small"] <= 2


# The figure


@pytest.fixture
def drawn():
    """A study with every kind of verdict, as a figure and its tables."""
    parts = [TEST, OTHER | {"expect": "below", "margin": 0.5}]
    tables = [*pair(HIGH, LOW), rows("a", [1], measure="other"), rows("b", [1], measure="other")]
    missing = OTHER | {"condition": "c"}
    single_run = OTHER | {"expect": "below"}
    asked_for = asked([TEST], parts, [TEST | {"expect": "below"}], [single_run], [missing])
    result, detail = claims.evaluate(asked_for, pd.concat(tables))
    return result, detail, draw_claims(result, detail)


def test_every_verdict_can_be_drawn(drawn):
    result, detail, figure = drawn
    assert result["verdict"].tolist() == list(claims.VERDICTS)
    words = [text.get_text() for text in figure.axes[0].texts]
    marked = {"✓ reproduced", "◐ partly reproduced", "✗ contradicted", "? undecided", "\N{EN DASH} not measured"}
    assert marked <= set(words) and "1 of 2" in words
    assert [word for word in words if word in set(detail["part"])] == detail["part"].tolist()


def test_right_of_the_line_is_as_claimed(drawn):
    _, detail, figure = drawn
    marks = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    measured = detail[detail["verdict"] != "not measured"]
    sides = {"reproduced": 1, "contradicted": -1}
    for mark, part in zip(marks, measured.itertuples(), strict=True):
        if part.verdict in sides:
            assert np.sign(mark.get_xdata()[0]) == sides[part.verdict]
