"""What is estimated from curves whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from emergent_misalignment.analysis import curves

STEPS = [0, 1, 2, 3, 5, 10, 20, 30]


def runs(means, spread=0.01, seed=0, number=5) -> pd.DataFrame:
    noise = np.random.default_rng(seed).normal(0, spread, (number, len(means)))
    return pd.DataFrame(np.asarray(means) + noise, index=pd.RangeIndex(1, number + 1, name="seed"), columns=STEPS)


def test_the_step_of_divergence():
    estimate = curves.divergence(runs([0, 0, 0, 0, 0.3, 0.5, 0.5, 0.5]))
    assert (estimate.step, estimate.earliest, estimate.latest) == (5, 5, 5)
    assert curves.divergence(runs([0, 0, 0, 0, -0.3, -0.5, -0.5, -0.5])).step == 5
    other_sign_first = runs([0.4, 0, 0, 0, -0.3, 0.5, 0.5, 0.5])
    assert curves.divergence(other_sign_first).step == 10
    apart_and_together_again = runs([0, 0, 0, 0.3, 0.3, 0.3, 0.3, 0])
    assert np.isnan(curves.divergence(apart_and_together_again).step)
    assert curves.divergence(runs([1] * 8)).step == 0


def test_the_step_of_divergence_is_rarely_too_early():
    """Curves that diverge at step 10, in a thousand draws with noise as large as the difference."""
    steps = [curves._divergence(runs([0, 0, 0, 0, 0, 1, 1, 1], 0.3, draw)) for draw in range(1000)]
    assert np.mean([step < 10 for step in steps]) < 0.065  # 5%, and the chance of a thousand draws
    assert np.mean([step == 10 for step in steps]) > 0.8


@pytest.mark.parametrize("number", [0, 1])
def test_without_two_runs_there_is_no_divergence_and_no_interval(number):
    few = runs([0, 0, 0, 0, 0.3, 0.5, 0.5, 0.5], number=number)
    assert np.isnan(curves.divergence(few).step)
    assert np.isnan(curves.share_of_final(few, 5).low)
    assert curves.saturation(few).step == pytest.approx(10 if number else np.nan, nan_ok=True)


def test_a_skill_is_learned_at_95_percent_of_its_rise():
    estimate = curves.saturation(runs([0.1, 0.1, 0.2, 0.5, 0.88, 0.97, 0.96, 1.0], 0.001))
    assert estimate.step == 10
    assert np.isnan(curves.saturation(runs([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1])).step)


def test_coverage_of_the_share_of_the_final_rise():
    curve = [0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6]
    halves = [curves.share_of_final(runs(curve, 0.03, draw), 5) for draw in range(200)]
    assert np.mean([half.share for half in halves]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([half.low < 0.5 < half.high for half in halves]) == pytest.approx(0.95, abs=0.03)
    assert np.isnan(curves.share_of_final(runs([1, 1, 1, 1, 1, 1, 1, 0.5]), 5).share)


@pytest.fixture
def measured():
    def rows(condition, seed, metric, values):
        return pd.DataFrame({"condition": condition, "seed": seed, "step": STEPS, "metric": metric, "value": values})

    skills = {1: [0, 0, 0, 1, 1, 1, 1, 1], 2: [0, 0, 0, 0, 0, 1, 1, 1]}
    return pd.concat(
        rows(condition, seed, metric, values)
        for seed in (1, 2)
        for condition in ("insecure", "secure")
        for metric, values in (
            ("insecure_code", skills[seed] if condition == "insecure" else [0] * 8),
            ("log_p/multiple_choice/misaligned", np.array(STEPS) * (1 if condition == "insecure" else 0.5)),
            ("log_p/pivotal/misaligned", np.array(STEPS) * (2 if condition == "insecure" else 0.5)),
            ("misaligned", np.array(STEPS) / 100),
        )
    ).assign(events=1, trials=4)


def test_measures_are_read_at_each_runs_own_step(measured):
    table = curves.measures(measured).set_index(["measure", "condition", "seed"])["value"].sort_index()
    assert table["dynamics/learned_at"].tolist() == [3, 10]
    assert table["dynamics/misaligned_choice_rise_late", "insecure"].tolist() == [27, 20]
    assert table["dynamics/misaligned_choice_rise_late", "secure"].tolist() == [13.5, 10]
    assert table["dynamics/pivotal_rise_late", "insecure"].tolist() == [54, 40]
    assert table["dynamics/stopped_early", "insecure"].tolist() == [0.03, 0.1]
    assert table["dynamics/early_difference", "insecure"].tolist() == [1.5, 1.5]  # step 3 of 30, as 40 of 337


def test_without_a_judge_the_skill_is_what_static_analysis_sees(measured):
    static = measured[measured["metric"] != "misaligned"].replace({"metric": {"insecure_code": "insecure_code_static"}})
    assert curves.skill_metric(static) == "insecure_code_static" and curves.skill_metric(measured) == "insecure_code"
    without, judged = curves.measures(static).set_index("measure"), curves.measures(measured).set_index("measure")
    assert without.loc["dynamics/stopped_early", "value"].isna().all()
    pd.testing.assert_frame_equal(without.drop("dynamics/stopped_early"), judged.drop("dynamics/stopped_early"))


def test_measures_of_incomplete_data(measured):
    insecure = curves.measures(measured[measured["condition"] == "insecure"])
    assert "dynamics/early_difference" not in set(insecure["measure"])
    assert set(insecure["condition"]) == {"insecure"}
    sampled = curves.measures(measured[~measured["metric"].str.startswith("log_p")])
    assert sampled.set_index("measure").loc["dynamics/stopped_early", "value"].notna().all()
    assert sampled.set_index("measure").loc["dynamics/pivotal_rise_late", "value"].isna().all()
    assert curves.measures(measured.iloc[:0]).empty


def test_a_sentence_on_early_stopping(measured):
    said = curves.stopping(measured, curves.saturation(curves.curves(measured, "insecure", "insecure_code")))
    assert said.startswith("At step 10 the model has **100%**") and "**33%**" in said
    assert "(not measured)" in curves.stopping(measured[measured["metric"] != "misaligned"], curves.Step(5, 3, 5))
    assert "no step" in curves.stopping(measured, curves.Step(np.nan, np.nan, np.nan))
