"""Contrasts between conditions: paired by seed, by the rule that the claims are tested by."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from emergent_misalignment.analysis import claims
from emergent_misalignment.analysis.contrasts import (
    contrast,
    contrasts,
    described,
    directions,
    holm,
    runs_by_arm,
    signed,
)

A, B, C = ("a", "m"), ("b", "m"), ("c", "m")


def rows(condition, values, measure="m", trials=np.nan, first_seed=1):
    """Measures of runs with seeds from `first_seed` on; with `trials`, the values are shares with counts."""
    table = pd.DataFrame({"condition": condition, "seed": range(first_seed, first_seed + len(values)), "value": values})
    return table.assign(measure=measure, events=table["value"] * trials, trials=trials)


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


def test_pairs_see_what_an_unpaired_test_would_not():
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


def test_equal_runs_with_counts_go_by_the_spread_of_their_answers():
    row = single([A, B], alike("a", 1.0), alike("b", 0.0))
    assert row.ci_low < row.difference == 1 < row.ci_high
    assert row.p < 0.001


def alike(condition, share):
    return rows(condition, [share] * 5, trials=50)


def test_without_events_there_is_no_clear_difference():
    row = single([A, B], alike("a", 0.0), alike("b", 0.0))
    assert (row.difference, row.p) == (0, 1)
    assert row.ci_low < 0 < row.ci_high


def test_what_cannot_be_tested_and_what_was_not_measured():
    table = pd.concat([rows("a", [1.5, 2.5]), rows("b", [1, 2]), rows("c", [1])])
    pairs = {"no spread": (A, B), "one": (A, C), "none": (A, ("d", "m")), "nothing": (("a", "x"), A)}
    compared = contrasts(table, pairs)
    assert compared["p_holm"].tolist() == pytest.approx([1, 1, np.nan, np.nan], nan_ok=True)
    assert directions(compared) == {
        "no spread": "no clear difference",
        "one": "no clear difference",
        "none": "not measured",
        "nothing": "not measured",
    }
    assert described(compared).splitlines() == [
        "- no spread: +50.0 points, without a spread to test by (all runs have the same value).",
        "- one: +50.0 points, without a spread to test by (a single run).",
        "- Not measured: none; nothing.",
    ]


def test_values_that_are_missing_are_no_runs():
    assert single([A, B], rows("a", [1, 2, 4, np.nan, np.inf]), rows("b", [0, 0, 0, 9, 9])).seeds == 3
    assert np.isnan(single([A, B], rows("a", [np.nan]), rows("b", [1])).p)


def test_no_pairs_and_no_measures():
    assert contrasts(rows("a", [1, 2]), {}).empty and described(contrasts(rows("a", [1]), {})) == ""
    assert directions(contrasts(rows("a", []), {"it": (A, B)})) == {"it": "not measured"}


def test_a_sentence_has_direction_size_interval_and_corrected_p():
    table = pd.concat([rows("a", [0.5, 0.6, 0.55]), rows("b", [0.1, 0.1, 0.11])])
    (line, other) = described(contrasts(table, {"more": (A, B), "less": (B, A)})).splitlines()
    assert line.startswith("- more: **higher**, +44.7 points (95% interval +") and line.endswith(", 3 seeds).")
    assert other.startswith("- less: **lower**, −44.7 points (95% interval −")


@pytest.mark.parametrize("p", [[], [0.2], [0.03, 0.01, 0.01, 0.9, 0.4, 0.02]])
def test_holm_is_over_what_was_measured(p):
    corrected = holm(pd.Series([np.nan, *p, np.nan]))
    assert corrected.isna().tolist() == [True, *[False] * len(p), True]
    if p:
        assert corrected[1:-1].tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize(("number", "text"), [(1.25, "+1.2"), (-3, "−3.0"), (0, "0.0"), (-0.04, "0.0")])
def test_signs_are_written_out(number, text):
    assert signed(number) == text


# Shares of 20 answers, in few steps so that runs often agree, and have no event.
runs = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(runs, runs, st.booleans(), st.sampled_from([0, 1]), st.randoms())
def test_a_sentence_and_a_verdict_cannot_disagree(first, second, counted, control_from, random):
    """The claims' test and the sentences' contrast of the same runs, in whatever order, degenerate or not."""
    trials = 20 if counted else np.nan
    table = pd.concat(
        [
            rows("a", np.array(first) / 20, trials=trials),
            rows("b", np.array(second) / 20, trials=trials, first_seed=control_from),
        ]
    )
    table = table.sample(frac=1, random_state=random.randint(0, 99))
    test = {"says": "more", "measure": "m", "condition": "a", "control": "b", "expect": "above"}
    words = {"title": "A claim", "statement": "It is so.", "published": "5", "source": "Fig. 1"}
    asked = {"measures": {"m": {"unit": "nats"}}, "claims": [{"number": 1, **words, "tests": [test]}]}
    verdicts, tests = claims.evaluate(asked, table)
    (tested,) = tests.itertuples()
    compared = contrasts(table, {"it": (A, B)})
    (row,) = compared.itertuples()
    for ours, theirs in (("difference", "estimate"), ("ci_low", "ci_low"), ("ci_high", "ci_high"), ("seeds", "seeds")):
        assert getattr(row, ours) == pytest.approx(getattr(tested, theirs), nan_ok=True)
    if row.p == row.p:
        assert row.p == pytest.approx(min(tested.p, tested.p_against))
    expected = {
        "higher": "reproduced",
        "lower": "contradicted",
        "no clear difference": "undecided",
        "not measured": "not measured",
    }
    assert verdicts["verdict"].tolist() == [expected[directions(compared)["it"]]]


@settings(deadline=None, max_examples=40)
@given(runs, runs)
def test_swapping_the_arms_turns_the_sign(first, second):
    table = pd.concat([rows("a", np.array(first) / 20, trials=20), rows("b", np.array(second) / 20, trials=20)])
    there, back = contrasts(table, {"there": (A, B), "back": (B, A)}).itertuples()
    assert there.difference == pytest.approx(-back.difference, nan_ok=True)
    assert (there.ci_low, there.p) == (pytest.approx(-back.ci_high, nan_ok=True), pytest.approx(back.p, nan_ok=True))


def test_the_expected_side_of_a_margin():
    table = runs_by_arm(rows("a", [0.3, 0.4, 0.6]))
    two_sided = stats.ttest_1samp([0.3, 0.4, 0.6], 0.5).pvalue
    above, below = (contrast([A], table, expect, 0.5) for expect in ("above", "below"))
    assert (above.p_against, below.p) == pytest.approx((two_sided, two_sided))
    assert (above.p, below.p_against) == (1, 1)
    assert above.effect == -below.effect < 0
