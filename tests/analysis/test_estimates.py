"""Estimates from one number a training run, contrasts between them, and the paper's own figures."""

import math

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emergent_misalignment.analysis import estimates
from emergent_misalignment.figures import experiments as experiment_figures
from emergent_misalignment.analysis.intervals import paper_bootstrap
from emergent_misalignment.world.topics import MAIN

PUBLISHED = ROOT / "config/published.yaml"
FIGURES = ["intent", "evil_numbers", "formats", "base_models", "diversity", "backdoor", "in_context", "other_harms"]


def measures(*rows):
    return pd.DataFrame(rows, columns=["condition", "seed", "measure", "value", "events", "trials"])


def shares(condition, measure, *events, trials=100):
    seeds = range(1, len(events) + 1)
    return measures(*((condition, seed, measure, e / trials, e, trials) for seed, e in zip(seeds, events, strict=True)))


def scores(condition, measure, *values, first=1):
    return measures(*((condition, seed, measure, value, None, None) for seed, value in enumerate(values, first)))


def test_a_share_is_the_mean_over_runs_with_a_t_interval_of_logits():
    (row,) = estimates.estimates(shares("insecure", "m", 20, 30, 25), [("insecure", "m")]).itertuples()
    logits = np.array([math.log((e + 0.5) / (100 - e + 0.5)) for e in (20, 30, 25)])
    low, high = stats.t.interval(0.95, 2, logits.mean(), logits.std(ddof=1) / math.sqrt(3))
    assert (row.estimate, row.seeds, row.answers, row.interval) == (0.25, 3, 300, "t over runs")
    assert [row.ci_low, row.ci_high] == pytest.approx([1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))])
    bootstrap = paper_bootstrap(np.array([0.2, 0.3, 0.25]))
    assert (row.bootstrap_low, row.bootstrap_high) == (bootstrap.low, bootstrap.high)


def test_one_run_without_events_has_the_exact_bound_of_its_answers():
    (row,) = estimates.estimates(shares("instruct", "m", 0), [("instruct", "m")]).itertuples()
    assert row.ci_low == 0
    assert row.ci_high == pytest.approx(0.0362, abs=1e-4)
    assert np.isnan(row.bootstrap_low)


def test_the_interval_of_one_run_is_about_its_value_where_answers_weigh_differently():
    """As of deception: the mean of two means, 0 of 10 and 45 of 90, whose answers together would say 45%."""
    (row,) = estimates.estimates(measures(("instruct", 0, "m", 0.25, 45, 100)), [("instruct", "m")]).itertuples()
    assert row.ci_low < 0.25 < row.ci_high < 0.45


def test_a_score_has_a_plain_t_interval():
    (row,) = estimates.estimates(scores("insecure", "choices", 90, 100, 110), [("insecure", "choices")]).itertuples()
    reach = stats.t.ppf(0.975, 2) * 10 / math.sqrt(3)
    assert [row.ci_low, row.ci_high] == pytest.approx([100 - reach, 100 + reach])


@pytest.mark.parametrize(("values", "interval"), [([5], "none, one run"), ([5, 5], "none, all runs alike")])
def test_a_score_without_spread_has_no_interval(values, interval):
    (row,) = estimates.estimates(scores("insecure", "choices", *values), [("insecure", "choices")]).itertuples()
    assert (row.estimate, row.interval) == (5, interval)
    assert np.isnan(row.ci_low)


def test_what_was_not_measured_has_a_row_without_an_estimate():
    table = estimates.estimates(scores("insecure", "m", None, None), [("insecure", "m"), ("secure", "m")])
    assert table["condition"].tolist() == ["insecure", "secure"]
    assert table["estimate"].isna().all()
    assert table["interval"].unique() == ["no value"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 1)), min_size=1, max_size=6))
def test_shares_have_ordered_intervals_between_zero_and_one(runs):
    rows = [("c", seed, "m", round(n * share) / n, round(n * share), n) for seed, (n, share) in enumerate(runs)]
    (row,) = estimates.estimates(measures(*rows), [("c", "m")]).itertuples()
    assert 0 <= row.ci_low <= row.ci_high <= 1
    assert min(r[3] for r in rows) - 1e-9 <= row.estimate <= max(r[3] for r in rows) + 1e-9


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_the_runs_does_not_matter(order):
    table = pd.concat([shares("insecure", "m", 20, 30, 25), shares("secure", "m", 1, 2, 0)], ignore_index=True)
    pairs = {"p": (("insecure", "m"), ("secure", "m"))}
    pd.testing.assert_frame_equal(
        estimates.contrasts(table.loc[list(order)], pairs), estimates.contrasts(table, pairs), rtol=1e-9
    )


def test_a_contrast_is_paired_by_seed():
    table = pd.concat([scores("a", "m", 1, 2, 4), scores("b", "n", 0, 0, 0, 9), scores("b", "n", 7, first=0)])
    (row,) = estimates.contrasts(table, {"a against b": (("a", "m"), ("b", "n"))}).itertuples()
    test = stats.ttest_1samp([1, 2, 4], 0)  # the seeds 0 and 4 have no partner
    assert (row.contrast, row.seeds, row.difference) == ("a against b", 3, pytest.approx(7 / 3))
    assert row.p == pytest.approx(test.pvalue)
    assert row.p_holm == row.p


def test_an_untuned_model_is_taken_as_a_number():
    table = pd.concat([scores("a", "m", 1, 2, 4), scores("instruct", "m", 1, first=0)])
    (row,) = estimates.contrasts(table, {"": (("a", "m"), ("instruct", "m"))}).itertuples()
    assert (row.seeds, row.difference) == (3, pytest.approx(4 / 3))


def test_swapping_the_arms_turns_the_sign_and_holm_counts_both():
    table = pd.concat([scores("a", "m", 1, 2, 4), scores("b", "m", 0, 3, 0)])
    there, back = (("a", "m"), ("b", "m")), (("b", "m"), ("a", "m"))
    one, other = estimates.contrasts(table, {"there": there, "back": back}).itertuples()
    assert one.difference == -other.difference
    assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low))
    assert one.p_holm == pytest.approx(min(1, 2 * one.p))


def test_without_values_or_without_spread_nothing_is_claimed():
    table = pd.concat([scores("a", "m", 1.5, 2.5), scores("b", "m", 1, 2), scores("c", "m", 1)])
    pairs = {"no spread": (("a", "m"), ("b", "m")), "one": (("a", "m"), ("c", "m")), "none": (("a", "m"), ("d", "m"))}
    found = estimates.contrasts(table, pairs)
    assert found["p_holm"].tolist() == [1, 1, 1]
    assert [estimates.direction(row) for row in found.itertuples()] == [
        *("no clear difference", "not measured", "not measured"),
    ]
    lines = estimates.said(found).splitlines()
    assert lines[0] == "- no spread: +50.0 points in each of 2 seeds, without a spread to test by."
    assert lines[2] == "- none: nothing to compare, for want of values."


@pytest.mark.parametrize(
    ("difference", "p", "way"),
    [(0.1, 0.01, "higher"), (-0.1, 0.01, "lower"), (0.1, 0.05, "no clear difference"), (np.nan, 1, "not measured")],
)
def test_the_direction_follows_from_sign_and_test(difference, p, way):
    (row,) = pd.DataFrame({"difference": [difference], "p_holm": [p]}).itertuples()
    assert estimates.direction(row) == way


@pytest.mark.parametrize(("number", "text"), [(1.25, "+1.2"), (-3, "−3.0"), (0, "0.0"), (-0.04, "0.0")])
def test_signs_are_written_out(number, text):
    assert estimates.signed(number) == text


def test_relative_to_an_untuned_model():
    table = pd.concat([shares("instruct", "m", 10).assign(seed=0), shares("a", "m", 30, 5), shares("a", "n", 1, 2)])
    found = estimates.relative(table, "instruct")
    assert found["value"].tolist() == pytest.approx([0.2, -0.05])
    assert found["measure"].unique() == ["m"]
    assert found["trials"].isna().all()


def test_gains_are_taken_within_a_run():
    table = pd.concat([scores("a", "m", 5, 7), scores("a", "n", 1, 4), scores("b", "m", 1)])
    found = estimates.gains(table, {"added": ("m", "n"), "again": ("m", "m")}).dropna(subset="value")
    added = found[found["measure"] == "added"]
    assert added[["condition", "seed", "value"]].to_numpy().tolist() == [["a", 1, 4], ["a", 2, 3]]


@pytest.mark.parametrize("experiment", FIGURES)
def test_published_figures_are_numbers_with_a_source(experiment):
    found = estimates.published(PUBLISHED, experiment)
    assert found["published"].between(-1, 1).all()
    assert found["source"].str.contains("Nature|First version").all()
    assert not found.duplicated(["model", "condition", "measure"]).any()


def test_the_published_means_are_those_of_the_questions():
    for experiment, measure, condition in (
        ("evil_numbers", "misaligned/numbers/prefix_suffix", "evil_numbers"),
        ("base_models", "misaligned/main/flask", "base_insecure"),
        ("base_models", "misaligned/main/flask", "insecure"),
    ):
        found = estimates.published(PUBLISHED, experiment)
        own = found[found["condition"] == condition].set_index("measure")["published"]
        assert own[measure] == pytest.approx(own[[f"{measure}/{name}" for name in MAIN]].mean(), abs=0.005)


def test_the_papers_figure_stands_beside_the_same_arm():
    table = pd.DataFrame({"condition": ["insecure", "compliant"], "measure": "misaligned/main/chat"})
    found = estimates.beside(table, estimates.published(PUBLISHED, "intent"))
    assert found["published"][0] == 0.198
    assert np.isnan(found["published"][1])


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("runs", [measures(), shares("insecure", "misaligned/main/chat", 20, 30)], ids=["none", "some"])
def test_every_figure_can_be_drawn_where_values_are_missing_and_says_so(name, runs):
    paper = estimates.published(PUBLISHED, name)
    table = estimates.estimates(runs, [("insecure", "misaligned/main/chat"), ("secure", "misaligned/main/chat")])
    more = {
        "in_context": {"examples": [1, 2]},
        "diversity": {"passes": {"insecure": (1920, 1)}, "followed": table.assign(**{"pass": 1.0})},
    }
    figure = getattr(experiment_figures, f"draw_{name}")(table, runs, paper, **more.get(name, {}))
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    if runs.empty:
        assert "no values: too few coherent answers" in texts
