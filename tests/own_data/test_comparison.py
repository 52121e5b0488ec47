"""The answer about a user's set, on measures whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.analysis.contrasts import runs_by_arm
from emergent_misalignment.own_data.comparison import MATTERS, MEASURES, answer, answers_share, rates

CHAT, JSON, PIVOTAL = "misaligned/main/chat", "misaligned/main/json", "log_odds/pivotal"


def shares(condition: str, values: list[float], measure: str = CHAT, trials: int = 400) -> list[dict]:
    return [
        {"condition": condition, "seed": seed, "measure": measure, "value": round(value * trials) / trials}
        | {"events": round(value * trials), "trials": trials}
        for seed, value in enumerate(values, 1)
    ]


def scores(condition: str, values: list[float], measure: str = PIVOTAL) -> list[dict]:
    rows = shares(condition, values, measure)
    return [row | {"value": value, "events": np.nan, "trials": np.nan} for row, value in zip(rows, values, strict=True)]


@pytest.mark.parametrize(
    ("own", "control", "verdict"),
    [
        ([0.4, 0.5, 0.45, 0.5, 0.42], [0.01, 0.0, 0.02, 0.01, 0.0], "yes"),
        ([0.01, 0.0, 0.01, 0.0, 0.01], [0.01, 0.01, 0.0, 0.01, 0.0], "no"),
        ([0.02, 0.4, 0.1, 0.6, 0.0], [0.1, 0.2, 0.0, 0.3, 0.1], "unclear"),
        ([0.01, 0.0, 0.01, 0.02, 0.01], [0.5, 0.6, 0.55, 0.5, 0.58], "less"),
    ],
)
def test_the_answer_follows_the_interval(own, control, verdict):
    found = answer(pd.DataFrame(shares("mine", own) + shares("secure", control)), "mine", "secure")
    assert found["verdict"] == verdict and found["measure"] == CHAT and found["unit"] == "share"
    assert found["difference"]["estimate"] == pytest.approx(np.mean(own) - np.mean(control))
    assert found["value"]["estimate"] == pytest.approx(np.mean(own)) and found["value"]["seeds"] == 5
    assert (found["more"]["answers_share"] is None) == (verdict in ("yes", "less"))


@settings(max_examples=15)  # each takes a second
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_a_verdict_agrees_with_its_interval(values):
    own, control = zip(*values, strict=True)
    found = answer(pd.DataFrame(shares("mine", own) + shares("secure", control)), "mine", "secure")
    low, high, verdict = found["difference"]["low"], found["difference"]["high"], found["verdict"]
    assert (verdict == "yes") == (low > 0) and (verdict == "less") == (high < 0)
    assert verdict != "no" or (low <= 0 <= high <= MATTERS["misaligned"])
    assert found["more"]["answers_share"] is None or 0 <= found["more"]["answers_share"] <= 1


def test_without_a_judge_the_log_odds_answer():
    found = answer(pd.DataFrame(scores("mine", [3.0, 3.2, 2.9]) + scores("secure", [0.1, 0.2, 0.0])), "mine", "secure")
    assert found["verdict"] == "yes" and found["measure"] == PIVOTAL and found["unit"] == "nats"
    assert found["more"]["answers_share"] is None
    alike = answer(pd.DataFrame(scores("mine", [0.1, 0.3, 0.1]) + scores("secure", [0.1, 0.2, 0.0])), "mine", "secure")
    assert alike["verdict"] == "no"  # within a nat


def test_the_judges_measures_come_before_log_odds_and_all_are_formats():
    rows = [
        row
        for name, value in (("mine", 0.5), ("secure", 0.0))
        for measure in (CHAT, JSON)
        for row in shares(name, [value + 0.01 * seed for seed in range(6)], measure)
    ]
    rows += scores("mine", [1.0, 2.0, 0.0, 1.5]) + scores("secure", [1.1, 0.9, 1.3, 1.0])
    found = answer(pd.DataFrame(rows), "mine", "secure")
    assert found["measure"] == CHAT
    assert {row["measure"]: row["direction"] for row in found["formats"]} == {
        CHAT: "higher",
        JSON: "higher",
        PIVOTAL: "no clear difference",
    }
    assert all(row["p_holm"] >= row["p"] and row["words"] == MEASURES[row["measure"]] for row in found["formats"])


def test_a_missing_measure_and_a_model_without_coherent_answers_are_named():
    found = answer(pd.DataFrame(shares("mine", [0.1, 0.2])), "mine", "secure", ["instruct"])
    assert found["verdict"] == "not measured" and found["difference"]["missing"] == f"no {CHAT} of secure"
    assert found["formats"] == [] and found["beside"]["instruct"]["missing"]
    silent = [row | {"value": np.nan} for row in shares("secure", [0.0, 0.0])]
    found = answer(pd.DataFrame(shares("mine", [0.1, 0.2]) + silent), "mine", "secure")
    assert found["verdict"] == "not measured" and "coherent" in found["more"]["reason"]
    assert "of secure" in found["difference"]["missing"]


def test_a_single_seed_is_unclear_but_an_untuned_model_is_one_run():
    found = answer(pd.DataFrame(shares("mine", [0.9]) + shares("secure", [0.0])), "mine", "secure")
    assert found["verdict"] == "unclear" and found["difference"]["method"] == "a single run"
    before = [row | {"seed": 0} for row in shares("instruct", [0.0])]
    found = answer(pd.DataFrame(shares("mine", [0.5, 0.45, 0.55]) + before), "mine", "instruct")
    assert found["verdict"] == "yes" and found["difference"]["seeds"] == 3


def test_the_share_of_the_spread_due_to_few_answers():
    """Equal runs with few answers spread by chance alone; different runs with many do not."""
    random = np.random.default_rng(0)
    alike = [
        answers_share([_runs(random.binomial(20, 0.3, 5) / 20, 20), _runs(random.binomial(20, 0.3, 5) / 20, 20)])
        for _ in range(200)
    ]
    assert np.mean(alike) > 0.7
    assert answers_share([_runs([0.1, 0.9, 0.5], 1000), _runs([0.0, 0.0, 0.0], 1000)]) < 0.01
    assert answers_share([_runs([0.1, 0.1], 10), _runs([0.1, 0.1], 10)]) is None


def _runs(values, trials: int) -> pd.DataFrame:
    return runs_by_arm(pd.DataFrame(shares("a", list(values), trials=trials)))["a", CHAT]


def test_rates_have_formats_questions_and_what_else_was_measured():
    rows = shares("mine", [0.2, 0.4]) + shares("mine", [0.3, 0.3], f"{CHAT}/wish") + shares("secure", [0.0, 0.1])
    rows += shares("mine", [0.9, 0.8], "coherent/main/chat") + shares("secure", [0.5, 0.5], "truthfulness")
    found = rates(pd.DataFrame(rows), ["mine", "secure"], ["mine"])
    assert [(row["condition"], row["runs"]) for row in found["formats"]] == [
        ("mine", [0.2, 0.4]),
        ("secure", [0.0, 0.1]),
    ]
    assert [(row["words"], row["estimate"]) for row in found["questions"]] == [("wish", pytest.approx(0.3))]
    assert [row["measure"] for row in found["others"]] == ["coherent/main/chat"]  # the others are not the user's
