"""How far scores can be trusted: on points whose correlation and chance are known."""

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.analysis import score_trust
from emergent_misalignment.analysis.score_trust import ABOVE, CORRELATION, MEAN, chance, correlations, outcomes, trust


def tables(outcome: list[list[float]], measure: str = "misaligned/main/chat") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores that rise from set to set, with noise by seed, and outcomes: a list a seed, a value a set."""
    places = [
        (f"set-{place}", seed, place, value) for seed, own in enumerate(outcome) for place, value in enumerate(own)
    ]
    summary = pd.DataFrame(
        [(name, seed, place + 0.1 * seed, 0.99 + 0.01 * seed) for name, seed, place, _ in places],
        columns=["condition", "seed", "mean", "insecure_above"],
    )
    measures = pd.DataFrame(
        [(name, seed, measure, value) for name, seed, _, value in places],
        columns=["condition", "seed", "measure", "value"],
    )
    return summary, measures


def test_a_perfect_correlation_of_three_sets_has_a_large_p():
    summary, measures = tables([[0.0, 0.1, 0.2], [0.1, 0.2, 0.9]])
    points = outcomes(summary, measures)
    assert correlations(points)["value"].tolist() == [1, 1]
    assert chance(points) == pytest.approx(2 / 6)  # in order, or all the other way round
    row = trust(summary, measures, "toy").set_index("measure").loc[CORRELATION]
    assert row["estimate"] == 1 and row["conditions"] == 3 and row["p"] == pytest.approx(1 / 3)
    assert row["study"] == "toy" and row["outcome"] == "misaligned/main/chat" and np.isnan(row["ci_low"])
    said = score_trust.described(trust(summary, measures, "toy"), "misaligned answers")
    assert "correlation of 1.00." in said and "3 sets" in said and "0.33" in said


def test_p_is_small_for_ordered_sets_and_not_for_random_ones():
    ordered = [[value / 10 + seed / 100 for value in range(9)] for seed in range(3)]
    assert chance(outcomes(*tables(ordered))) < 0.001
    rng = np.random.default_rng(1)
    assert chance(outcomes(*tables(rng.random((3, 9)).tolist()))) > 0.05


def test_the_permutation_p_is_exact():
    """Over all orders that chance could give four sets, each p comes as often as it says."""
    found = np.array([chance(outcomes(*tables([list(order)] * 2))) for order in permutations(range(4))])
    for p in found:
        assert (found <= p + 1e-9).mean() == pytest.approx(p)


def test_two_sets_and_equal_outcomes_have_no_correlation():
    for outcome in ([[0.0, 1.0]], [[0.5, 0.5, 0.5]]):
        table = trust(*tables(outcome), "toy")
        assert CORRELATION not in set(table["measure"]) and set(table["measure"]) == {MEAN, ABOVE}
        assert "no correlation" in score_trust.described(table, "misaligned answers")


def test_runs_without_an_outcome_are_left_out():
    summary, measures = tables([[0.0, 0.1, np.nan, 0.3], [0.0, 0.1, 0.2, 0.3]])
    points = outcomes(summary, measures)
    assert correlations(points)["conditions"].tolist() == [3, 4]
    assert chance(points) == pytest.approx(1 / 3)  # of the three sets that both seeds have


def test_without_a_judge_the_log_odds_are_the_outcome():
    summary, measures = tables([[0.0, 1.0, 2.0]], "log_odds/pivotal")
    assert score_trust.outcome_of(measures) == "log_odds/pivotal"
    assert len(outcomes(summary, measures)) == 3
    both = pd.concat([measures, measures.assign(measure="misaligned/main/chat", value=np.nan)])
    assert score_trust.outcome_of(both) == "log_odds/pivotal"  # what has no value was not measured
    assert score_trust.outcome_of(measures[:0]) == ""


def test_intervals_are_clipped_to_the_range_of_values():
    summary, measures = tables([[0.0, 0.2, 0.1], [0.0, 0.1, 0.2], [0.1, 0.0, 0.2]])
    table = trust(summary, measures, "toy").set_index(["measure", "condition"])
    assert table.loc[(ABOVE, "set-0"), "ci_high"] == 1 > table.loc[(ABOVE, "set-0"), "ci_low"]
    assert table.loc[(CORRELATION, "all"), "ci_high"] <= 1
    assert table.loc[(MEAN, "set-2"), "ci_high"] > 2


@given(st.integers(1, 9))
def test_permutations_begin_with_the_identity(number):
    orders = score_trust._orders(number)
    assert orders[0].tolist() == [*range(number)] and len(orders) == min(factorial(number), score_trust.ORDERS)
    assert (np.sort(orders) == np.arange(number)).all()
