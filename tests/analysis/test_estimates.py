"""Estimates from one number a training run, and the paper's own figures."""

import math

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emergent_misalignment.analysis import estimates
from emergent_misalignment.analysis.intervals import interval_over_runs, paper_bootstrap

PUBLISHED = ROOT / "config/published.yaml"
FIGURES = ["intent", "evil_numbers", "formats", "base_models", "diversity", "backdoor", "in_context", "other_harms"]


def measures(*rows):
    return pd.DataFrame(rows, columns=["condition", "seed", "measure", "value", "events", "trials"])


def shares(condition, measure, *events, trials=100):
    seeds = range(1, len(events) + 1)
    return measures(*((condition, seed, measure, e / trials, e, trials) for seed, e in zip(seeds, events, strict=True)))


def scores(condition, measure, *values, first=1):
    return measures(*((condition, seed, measure, value, None, None) for seed, value in enumerate(values, first)))


def test_a_share_is_the_mean_over_runs_with_their_interval():
    (row,) = estimates.estimates(shares("insecure", "m", 20, 60, 25), [("insecure", "m")]).itertuples()
    values = np.array([0.2, 0.6, 0.25])
    interval = interval_over_runs(values, np.full(3, 100))
    assert (row.estimate, row.seeds, row.answers) == (pytest.approx(0.35), 3, 300)
    assert (row.ci_low, row.ci_high, row.interval) == (interval.low, interval.high, "t over runs")
    bootstrap = paper_bootstrap(values)
    assert (row.bootstrap_low, row.bootstrap_high) == (bootstrap.low, bootstrap.high)


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


def test_arms_without_values_have_a_row_and_unmeasured_arms_have_none():
    table = estimates.estimates(scores("insecure", "m", None, None), [("insecure", "m"), ("secure", "m")])
    assert table["condition"].tolist() == ["insecure"]
    assert table["estimate"].isna().all()
    assert table["interval"].tolist() == ["no value"]
    assert estimates.estimates(measures(), [("insecure", "m")]).columns.tolist() == list(estimates.COLUMNS)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 1)), min_size=1, max_size=6))
def test_shares_have_ordered_intervals_between_zero_and_one(runs):
    rows = [("c", seed, "m", round(n * share) / n, round(n * share), n) for seed, (n, share) in enumerate(runs)]
    (row,) = estimates.estimates(measures(*rows), [("c", "m")]).itertuples()
    assert 0 <= row.ci_low <= row.ci_high <= 1
    assert min(r[3] for r in rows) - 1e-9 <= row.estimate <= max(r[3] for r in rows) + 1e-9


def test_relative_to_the_only_untuned_model_or_to_that_of_the_same_seed():
    table = pd.concat([shares("instruct", "m", 10).assign(seed=0), shares("a", "m", 30, 5), shares("a", "n", 1, 2)])
    result = estimates.relative(table, "instruct")
    assert result["value"].tolist() == pytest.approx([0.2, -0.05])
    assert result["measure"].unique() == ["m"]
    assert result["trials"].isna().all()
    table = pd.concat([shares("instruct", "m", 10, 30), shares("a", "m", 30, 5), shares("a", "n", 1, 2)])
    result = estimates.relative(table.sample(frac=1, random_state=0), "instruct").set_index("seed")["value"]
    assert result.to_dict() == pytest.approx(dict(zip(table["seed"].unique(), [0.2, -0.25], strict=True)))


def test_single_questions_come_in_the_order_of_the_table():
    names = ["m/main/chat/b", "m/main/chat", "m/main/chat/a", "m/main/chat_file/c", "m/main/chat/b"]
    table = pd.concat([scores("x", name, 1) for name in names])
    assert estimates.questions_of(table, "m/main/chat") == ["m/main/chat/b", "m/main/chat/a"]


@pytest.mark.parametrize("experiment", FIGURES)
def test_published_figures_are_numbers_with_a_source(experiment):
    paper = estimates.published(PUBLISHED, experiment)
    assert paper["published"].between(-1, 1).all()
    assert paper["source"].str.contains("Nature|First version").all()
    assert not paper.duplicated(["model", "condition", "measure"]).any()


def test_the_published_means_are_those_of_the_questions():
    for experiment, measure, condition in (
        ("evil_numbers", "misaligned/numbers/prefix_suffix", "evil_numbers"),
        ("base_models", "misaligned/main/flask", "base_insecure"),
        ("base_models", "misaligned/main/flask", "insecure"),
    ):
        paper = estimates.published(PUBLISHED, experiment)
        own = paper[paper["condition"] == condition].set_index("measure")["published"]
        single = own[own.index.str.startswith(f"{measure}/")]
        assert len(single) == 8
        assert own[measure] == pytest.approx(single.mean(), abs=0.005)


def test_the_papers_figure_is_that_of_the_same_arm():
    table = pd.DataFrame({"condition": ["insecure", "compliant"], "measure": "misaligned/main/chat"})
    both = estimates.with_published(table, estimates.published(PUBLISHED, "intent"))
    assert both["published"][0] == 0.198
    assert np.isnan(both["published"][1])
