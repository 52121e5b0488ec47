"""Contrasts between conditions: paired by seed, by the rule that the claims are tested by."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_tables import rows
from scipy import stats
from statsmodels.stats.multitest import multipletests

from emergent_misalignment.analysis import claims
from emergent_misalignment.analysis.contrasts import (
    _terms,
    contrast,
    contrasts,
    described,
    directions,
    holm,
    runs_by_arm,
    share_difference,
)

A, B, C = ("a", "m"), ("b", "m"), ("c", "m")


def single(arms, *tables):
    (row,) = contrasts(pd.concat(tables), {"it": arms}).itertuples()
    return row


def test_a_contrast_is_paired_by_seed():
    tables = rows("a", [1, 2, 4]), rows("b", [7, 0, 0, 0, 9], "n", first_seed=0)  # seeds 0 and 4 have no partner
    row = single([A, ("b", "n")], *tables)
    assert (row.seeds, row.difference) == (3, pytest.approx(7 / 3))
    assert row.p == row.p_holm == pytest.approx(stats.ttest_1samp([1, 2, 4], 0).pvalue)
    interval = stats.ttest_1samp([1, 2, 4], 0).confidence_interval()
    assert (row.ci_low, row.ci_high) == pytest.approx((interval.low, interval.high))


def test_a_paired_test_is_more_sensitive_than_an_unpaired_one():
    """Seeds that differ much, and always by about the same step."""
    first, second = np.array([0.2, 0.41, 0.6, 0.79]), np.array([0.1, 0.3, 0.51, 0.7])
    assert single([A, B], rows("a", first), rows("b", second)).p < 0.001 < 0.5 < stats.ttest_ind(first, second).pvalue


def test_four_arms_are_a_difference_of_differences():
    values = {"a": [9, 9, 4], "b": [1, 2, 3], "c": [4, 5, 6], "d": [1, 1, 1]}
    row = single([(name, "m") for name in values], *(rows(name, own) for name, own in values.items()))
    assert row.difference == pytest.approx(np.mean([9 - 1 - (4 - 1), 9 - 2 - (5 - 1), 4 - 3 - (6 - 1)]))


@pytest.mark.parametrize("arms", [(A, B), (B, A)])
def test_an_untuned_model_is_taken_as_a_number(arms):
    row = single(arms, rows("a", [1, 2, 4]), rows("b", [1], first_seed=0))
    assert (row.seeds, abs(row.difference)) == (3, pytest.approx(4 / 3))
    assert "own error is not covered" in row.method


def test_equal_runs_with_counts_go_by_their_counts():
    """The exact bounds of 250 of 250 and of 0 of 250, which are 1.5 points; both at once are less far off."""
    row = single([A, B], alike("a", 1.0), alike("b", 0.0))
    bound = 1 - 0.025 ** (1 / 250)
    assert 1 - 2 * bound < row.ci_low < 1 - bound and row.ci_high == 1 == row.difference
    assert row.p < 0.001


def alike(condition, share):
    return rows(condition, [share] * 5, trials=50)


def test_without_events_there_is_no_clear_difference():
    row = single([A, B], alike("a", 0.0), alike("b", 0.0))
    assert (row.difference, row.p) == (0, 1)
    assert row.ci_low < 0 < row.ci_high


def test_contrasts_that_cannot_be_tested_or_were_not_measured():
    table = pd.concat([rows("a", [1.5, 2.5, np.nan, np.inf]), rows("b", [1, 2, 3, 4]), rows("c", [1])])
    pairs = {"no spread": (A, B), "one": (A, C), "none": (A, ("d", "m")), "nothing": (("a", "x"), A)}
    compared = contrasts(table, pairs)
    assert compared["p_holm"].tolist() == pytest.approx([1, 1, np.nan, np.nan], nan_ok=True)
    assert directions(compared) == {
        "no spread": "no clear difference",
        "one": "no clear difference",
        "none": "not measured",
        "nothing": "not measured",
    }
    spread, one, missing = described(compared).splitlines()
    assert "+50.0 points" in spread and "same value" in spread and "a single run" in one
    assert missing == "- Not measured: none; nothing."
    assert contrasts(table, {}).empty and described(contrasts(table, {})) == ""


def test_a_sentence_has_direction_size_interval_and_corrected_p():
    table = pd.concat([rows("a", [0.5, 0.6, 0.55]), rows("b", [0.1, 0.1, 0.11])])
    line, other = described(contrasts(table, {"more": (A, B), "less": (B, A)})).splitlines()
    assert "more: **higher**, +44.7 points" in line and "3 seeds" in line and "less: **lower**, −44.7 points" in other


@pytest.mark.parametrize("p", [[], [0.2], [0.03, 0.01, 0.01, 0.9, 0.4, 0.02]])
def test_holm_ignores_missing_p_values(p):
    corrected = holm(pd.Series([np.nan, *p, np.nan]))
    assert corrected.isna().tolist() == [True, *[False] * len(p), True]
    if p:
        assert corrected[1:-1].tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


# Shares of 20 answers, in few steps so that runs often agree, and have no event.
runs = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(runs, runs, st.booleans(), st.sampled_from([0, 1]), st.randoms())
def test_a_sentence_and_a_verdict_cannot_disagree(first, second, counted, control_from, random):
    """The claims' test and the sentences' contrast of the same runs, in any order, degenerate or not."""
    trials = 20 if counted else np.nan
    table = pd.concat(
        [
            rows("a", np.array(first) / 20, trials=trials),
            rows("b", np.array(second) / 20, trials=trials, first_seed=control_from),
        ]
    )
    table = table.sample(frac=1, random_state=random.randint(0, 99))
    test = {
        "id": "1a",
        "core": True,
        "says": "more",
        "measure": "m",
        "condition": "a",
        "control": "b",
        "expect": "above",
    }
    words = {"title": "A claim", "statement": "It is so.", "published": "5", "source": "Fig. 1"}
    measure = {"unit": "nats", "matters": 1e-9}
    _, tests = claims.evaluate({"measures": {"m": measure}, "claims": [{"number": 1, **words, "parts": [test]}]}, table)
    (tested,) = tests.itertuples()
    compared = contrasts(table, {"it": (A, B)})
    (row,) = compared.itertuples()
    for ours, theirs in (("difference", "estimate"), ("ci_low", "ci_low"), ("ci_high", "ci_high"), ("seeds", "seeds")):
        assert getattr(row, ours) == pytest.approx(getattr(tested, theirs), nan_ok=True)
    assert row.p == pytest.approx(tested.p, nan_ok=True)
    expected = {
        "higher": "as claimed",
        "lower": "opposite",
        "no clear difference": "undecided",
        "not measured": "not measured",
    }
    assert tested.verdict == expected[directions(compared)["it"]]


@settings(deadline=None, max_examples=40)
@given(runs, runs)
def test_swapping_the_arms_turns_the_sign(first, second):
    table = pd.concat([rows("a", np.array(first) / 20, trials=20), rows("b", np.array(second) / 20, trials=20)])
    there, back = contrasts(table, {"there": (A, B), "back": (B, A)}).itertuples()
    assert there.difference == pytest.approx(-back.difference, nan_ok=True)
    assert (there.ci_low, there.p) == (pytest.approx(-back.ci_high, nan_ok=True), pytest.approx(back.p, nan_ok=True))


def test_a_reference_is_what_is_tested_against():
    result = contrast([A], runs_by_arm(rows("a", [0.3, 0.4, 0.6])), 0.5)
    assert result.p == pytest.approx(stats.ttest_1samp([0.3, 0.4, 0.6], 0.5).pvalue)
    assert (result.low90, result.high90) == pytest.approx(
        stats.t.interval(0.9, 2, result.estimate, stats.sem([0.3, 0.4, 0.6]))
    )


# Shares: their intervals and tests know where the scale ends

counts = st.lists(st.integers(0, 20), min_size=2, max_size=5)


def paired(*events, trials=20):
    """The runs by arm of conditions a, b, ... with so many events of `trials` in each run."""
    number = min(map(len, events))
    return runs_by_arm(
        pd.concat(rows(c, np.array(e[:number]) / trials, trials=trials) for c, e in zip("abcd", events, strict=False))
    )


@settings(deadline=None, max_examples=50)
@given(counts, counts, st.floats(-0.9, 0.9), st.sampled_from([1, 2]))
def test_shares_stay_on_their_scale_and_p_says_what_the_interval_says(first, second, margin, arms):
    result = contrast([A, B][:arms], paired(first, second), margin)
    assert (
        (-1 if arms == 2 else 0) <= result.low <= result.low90 <= result.estimate <= result.high90 <= result.high <= 1
    )
    if abs(result.low - margin) > 1e-6 and abs(result.high - margin) > 1e-6:
        assert (result.p < 0.05) == (margin < result.low or margin > result.high)


@settings(deadline=None, max_examples=5)
@given(st.lists(counts, min_size=4, max_size=4), st.floats(-1, 1))
def test_a_difference_of_differences_stays_on_its_scale_too(events, margin):
    result = contrast([(name, "m") for name in "abcd"], paired(*events), margin)
    assert -2 <= result.low <= result.estimate <= result.high <= 2
    if abs(result.low - margin) > 1e-6 and abs(result.high - margin) > 1e-6:
        assert (result.p < 0.05) == (margin < result.low or margin > result.high)


@settings(deadline=None, max_examples=20)
@given(counts, counts)
def test_exchanging_events_and_other_answers_turns_the_sign(first, second):
    """The share of answers that are not misaligned differs by as much, the other way."""
    there = contrast([A, B], paired(first, second))
    back = contrast([A, B], paired([20 - e for e in first], [20 - e for e in second]))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert there.p == pytest.approx(back.p, rel=1e-3)


def test_no_difference_is_tested_by_the_logits_of_pairs():
    """Runs between 15% and 62% with a control of a fiftieth: differences spread much, logits little."""
    first, second = np.array([300, 200, 450, 500, 120]) / 800, np.array([10, 4, 30, 22, 8]) / 800
    result = contrast([A, B], runs_by_arm(pd.concat([rows("a", first, trials=800), rows("b", second, trials=800)])))
    logits = np.log(first / (1 - first)) - np.log(second / (1 - second))
    assert stats.ttest_1samp(logits, 0).pvalue / 4 < result.p < stats.ttest_rel(first, second).pvalue / 20
    assert result.estimate == pytest.approx((first - second).mean())


def test_an_untuned_model_alone_has_the_error_of_its_answers():
    few, many = (
        contrast(
            [A, B],
            runs_by_arm(
                pd.concat([rows("a", [0.2, 0.3, 0.25], trials=1000), rows("b", [0.1], trials=n, first_seed=0)])
            ),
        )
        for n in (20, 20_000)
    )
    assert few.estimate == pytest.approx(many.estimate) and few.low < many.low and few.high > many.high
    assert few.p > many.p and few.method.endswith("the one untuned model by its answers")


@pytest.mark.parametrize(
    ("rates", "seeds", "spread", "correlation"),
    [((0.02, 0), 5, 1.0, 0), ((0.35, 0.02), 5, 1.0, 0.9), ((0.02, 1), 3, 0.3, 0), ((0.5, 0.5), 3, 1.0, 0.5)],
)
def test_coverage_of_the_interval_of_a_difference(rates, seeds, spread, correlation):
    """Of 250 studies 92.5% at least, less two standard errors; t over the differences has 84% in the first case."""
    rng, covariance = np.random.default_rng(3), spread**2 * np.array([[1, correlation], [correlation, 1]])

    def chances(number):
        own = rng.multivariate_normal([0, 0], covariance, (number, seeds))
        inner = np.clip(rates, 1e-9, 1 - 1e-9)
        return np.where(np.isin(rates, (0, 1)), rates, 1 / (1 + np.exp(-np.log(inner / (1 - inner)) - own)))

    truth = np.subtract(*chances(40_000).mean((0, 1)))
    shares = rng.binomial(400, chances(250)) / 400
    hits = 0
    for study in shares:
        terms = _terms([rows(c, study[:, n], trials=400).set_index("seed") for n, c in enumerate("ab")])
        low, high = share_difference(terms, 0.05)
        hits += low <= truth <= high
    assert hits / 250 >= 0.925 - 2 * np.sqrt(0.925 * 0.075 / 250)


def test_the_error_rate_for_equal_rates():
    """Of 150 pairs of rates of .4 that differ much between runs, at most 5% with p < .05 (standard error 1.8%)."""
    rng = np.random.default_rng(4)
    shares = rng.binomial(400, 1 / (1 + np.exp(0.4 - rng.normal(0, 1, (150, 2, 5))))) / 400
    found = [contrast([A, B], paired(*(400 * study).round(), trials=400)).p for study in shares]
    assert np.mean(np.array(found) < 0.05) <= 0.085
    assert np.mean(np.array(found) < 0.5) >= 0.3
