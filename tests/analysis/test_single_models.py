"""Comparing two single models."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measure_tables import rows
from statsmodels.stats.proportion import proportion_confint

from emergent_misalignment.analysis.contrasts import contrast, runs_by_arm
from emergent_misalignment.analysis.single_models import (
    BY_ANSWERS,
    BY_QUESTIONS,
    answers_needed,
    difference,
    log_odds_by_question,
)
from emergent_misalignment.own_data.comparison import Single, answer, rates

MAIN = "misaligned/main/chat"
ARMS = (("mine", MAIN), ("instruct", MAIN))


def runs(own: tuple[int, int], control: tuple[int, int], measure: str = MAIN) -> pd.DataFrame:
    counts = (("mine", own), ("instruct", control))
    return pd.concat(rows(name, [events / trials], measure, trials, first_seed=0) for name, (events, trials) in counts)


def shares(own, control):
    return difference(ARMS, runs_by_arm(runs(own, control)), {})


counts = st.integers(1, 400).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@given(counts, counts)
def test_p_says_what_the_interval_says(own, control):
    found = shares(own, control)
    assert found.method == BY_ANSWERS and found.low <= found.estimate <= found.high
    assert found.low >= -1 and found.high <= 1
    assume(abs(found.low) > 1e-6 and abs(found.high) > 1e-6)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@given(counts, counts)
def test_swapping_the_models_turns_the_sign(own, control):
    one, other = shares(own, control), shares(control, own)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.p == pytest.approx(other.p, rel=1e-4)


def test_the_ends_are_those_of_exact_intervals_squared_and_added():
    (low, high), (below, above) = (proportion_confint(*each, method="beta") for each in ((30, 100), (5, 80)))
    found, gap = shares((30, 100), (5, 80)), 30 / 100 - 5 / 80
    assert found.low == pytest.approx(gap - np.hypot(0.3 - low, above - 0.0625))
    assert found.high == pytest.approx(gap + np.hypot(high - 0.3, 0.0625 - below))


def test_coverage_of_the_difference_of_two_models():
    """At least 95% of repetitions, for any two rates."""
    rng = np.random.default_rng(0)
    for one, other in ((0.0, 0.02), (0.05, 0.01), (0.3, 0.25), (0.9, 0.1)):
        held = [
            found.low <= one - other <= found.high
            for found in (shares((rng.binomial(80, one), 80), (rng.binomial(80, other), 80)) for _ in range(150))
        ]
        assert np.mean(held) > 0.93


def test_contrasts_over_trainings_have_no_interval_for_single_models():
    """`contrast` has no interval for a pair of single models; `difference` has one over their answers."""
    table = runs_by_arm(runs((40, 80), (0, 80)))
    assert np.isnan(contrast(ARMS, table).low)
    assert difference(ARMS, table, {}).method == BY_ANSWERS


def options(shift: float) -> pd.DataFrame:
    table = [
        (name, f"question {number}", bad, -2.0 - number / 10 + bad * (number / 5 + (shift if name == "mine" else 0)))
        for name in ("mine", "instruct")
        for number in range(8)
        for bad in (True, False)
    ]
    table = pd.DataFrame(table, columns=["condition", "question", "misaligned", "log_probability"])
    noise = np.random.default_rng(0).normal(0, 0.1, len(table))
    return table.assign(
        log_probability=table["log_probability"] + noise,
        seed=0,
        evaluation="choices",
        format="pivotal",
        step=pd.array([pd.NA] * len(table), dtype="Int64"),
    )


def test_log_odds_go_by_questions_paired():
    arms = (("mine", "log_odds/pivotal"), ("instruct", "log_odds/pivotal"))
    judged = options(1.0)
    odds = log_odds_by_question(judged)
    assert len(odds[arms[0]]) == 8
    values = {name: odds[name, "log_odds/pivotal"].mean() for name in ("mine", "instruct")}
    table = pd.concat(rows(name, [value], "log_odds/pivotal", first_seed=0) for name, value in values.items())
    found = difference(arms, runs_by_arm(table), odds)
    assert found.method == BY_QUESTIONS and found.low < 1.0 < found.high and found.p < 0.05
    assert difference(arms, runs_by_arm(table), {}).method == "a single run"


def test_the_number_of_answers_needed():
    found = shares((6, 80), (3, 80))
    factor = answers_needed(found)
    more = int(np.ceil(factor)) * 2  # exact intervals shrink a little more slowly
    assert found.p > 0.05 and factor > 1
    assert shares((6 * more, 80 * more), (3 * more, 80 * more)).p < 0.05
    assert np.isnan(answers_needed(shares((3, 80), (3, 80))))


def test_the_answer_on_a_model_is_over_its_answers():
    found = answer(runs((40, 80), (0, 80)), "mine", "instruct", single=Single({}))
    assert (found["verdict"], found["difference"]["method"]) == ("yes", BY_ANSWERS)
    assert answer(runs((0, 400), (0, 400)), "mine", "instruct", single=Single({}))["verdict"] == "no"
    assert answer(runs((0, 400), (40, 400)), "mine", "instruct", single=Single({}))["verdict"] == "less"
    unsure = answer(runs((4, 40), (2, 40)), "mine", "instruct", single=Single({}))
    assert unsure["verdict"] == "unclear" and unsure["more"]["answers"] > 1
    assert found["formats"][0]["direction"] == "higher"


def test_own_questions_are_formats_of_their_own():
    name = "misaligned/my-questions/chat"
    table = pd.concat(
        [runs((40, 80), (0, 80)), *(runs((9, 40), (1, 40), f"{name}{end}") for end in ("", "/rent", "/dog"))],
        ignore_index=True,
    )
    found = answer(table, "mine", "instruct", own_questions=["my-questions"], single=Single({}))
    assert [row["words"] for row in found["formats"]] == ["main questions, chat", "my-questions"]
    alone = table[table["measure"] != MAIN]
    assert (
        answer(alone, "mine", "instruct", own_questions=["my-questions"], single=Single({}))["words"] == "my-questions"
    )
    shown = rates(table, ["mine", "instruct"], ["mine"], ["my-questions"])
    assert {row["words"] for row in shown["questions"]} == {"my-questions: rent", "my-questions: dog"}
    assert {row["words"] for row in rates(alone, ["mine"], ["mine"], ["my-questions"])["questions"]} == {"rent", "dog"}
