"""The rule of the verdicts: complete, symmetric, and with known error rates."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_tables import rows
from scipy import stats

from emergent_misalignment.analysis.claim_verdicts import (
    PART_VERDICTS,
    VERDICTS,
    by_chance,
    claim_verdict,
    part_verdict,
    prevalence,
    seeds_needed,
)
from emergent_misalignment.analysis.contrasts import Contrast, contrast, runs_by_arm

A, B = ("a", "m"), ("b", "m")
number = st.floats(-3, 3)
reach = st.floats(0.01, 3)


def found(estimate, down, up, narrower, reference=0.0) -> Contrast:
    """A contrast with a 90% interval within its 95% interval."""
    return Contrast(
        estimate,
        estimate - down,
        estimate + up,
        estimate - narrower * down,
        estimate + narrower * up,
        5,
        reference=reference,
    )


@given(number, reach, reach, st.floats(0.1, 1), number, st.floats(0.01, 2))
def test_the_other_side_mirrors_the_verdict(estimate, down, up, narrower, reference, matters):
    there = part_verdict(found(estimate, down, up, narrower, reference), "above", matters)
    back = found(-estimate, up, down, narrower, -reference)
    mirrored = {"as claimed": "opposite", "opposite": "as claimed"}.get(there, there)
    assert part_verdict(back, "above", matters) == mirrored
    assert part_verdict(back, "below", matters) == there
    if there in ("absent", "opposite"):  # what is absent or lower is no higher
        assert part_verdict(found(estimate, down, up, narrower, reference), "no_higher", matters) == "as claimed"
    if there == "as claimed":
        narrow = part_verdict(found(estimate, down, up, narrower, reference), "no_higher", matters)
        assert narrow == "opposite"


@pytest.mark.parametrize(
    ("values", "above", "no_higher"),
    [
        ((2.0, 1.0, 3.0, 1.2, 2.8), "as claimed", "opposite"),
        ((-2.0, -3.0, -1.0, -2.8, -1.2), "opposite", "as claimed"),
        ((0.1, -0.9, 1.1, -0.7, 0.9), "absent", "as claimed"),
        ((0.1, -1.9, 2.1, -1.7, 1.9), "undecided", "undecided"),
        ((0.8, 0.1, 1.5, 0.2, 1.4), "undecided", "undecided"),  # above zero, perhaps by less than matters
        ((2.0, -1.0, 5.0, -0.5, 4.5), "undecided", "undecided"),
        ((0.5, 0.1, 0.9, 0.2, 0.8), "absent", "as claimed"),  # above zero, by less than matters
        ((2.0, np.nan, np.nan, np.nan, np.nan), "undecided", "undecided"),
    ],
)
def test_verdicts_where_one_matters(values, above, no_higher):
    assert part_verdict(Contrast(*values, 5), "above", 1) == above
    assert part_verdict(Contrast(*values, 5), "no_higher", 1) == no_higher
    assert part_verdict(Contrast(missing="no m of a"), "above", 1) == "not measured"


def test_every_combination_of_core_parts_has_one_verdict():
    for core in product(PART_VERDICTS, repeat=3):
        assert claim_verdict(core) in VERDICTS
        assert (claim_verdict(core) == "reproduced") == (set(core) == {"as claimed"})
        assert (claim_verdict(core) == "not measured") == (set(core) == {"not measured"})
        assert (claim_verdict(core) == "contradicted") == ("opposite" in core)


@pytest.mark.parametrize(
    ("core", "verdict"),
    [
        (["as claimed", "undecided"], "partly reproduced"),
        (["undecided", "as claimed"], "partly reproduced"),
        (["as claimed", "absent"], "partly reproduced"),
        (["as claimed", "not measured"], "partly reproduced"),
        (["absent", "as claimed"], "not reproduced"),
        (["not measured", "absent"], "not reproduced"),
        (["undecided", "absent"], "undecided"),
        (["not testable", "not testable"], "not testable"),
    ],
)
def test_the_headline_and_the_other_core_parts(core, verdict):
    assert claim_verdict(core) == verdict


def test_the_bound_of_the_share_of_seeds():
    """Hand-computed from the beta distribution: (quantile - .05) / .95."""
    assert prevalence(0, 5) == 0
    for shown, seeds, bound in ((5, 5, 0.59), (9, 10, 0.62), (15, 16, 0.74), (16, 16, 0.83)):
        assert prevalence(shown, seeds) == pytest.approx(bound, abs=0.005)
        quantile = 0.05 ** (1 / (seeds + 1)) if shown == seeds else stats.beta.isf(0.95, shown + 1, seeds - shown + 1)
        assert prevalence(shown, seeds) == pytest.approx((quantile - 0.05) / 0.95)


def test_claims_that_come_out_by_chance():
    assert by_chance(["above"] * 12 + ["no_higher"]) == pytest.approx(0.35)


# Error rates


def rate(verdict: str, effect: float, expect: str, studies: int = 1500, seeds: int = 6, matters: float = 1.0) -> float:
    """The share of simulated studies with a verdict, where the differences between runs have the spread 1."""
    draws = np.random.default_rng(0).normal(effect, 1, (studies, seeds))
    mean, error = draws.mean(1), stats.sem(draws, axis=1)
    ends = [mean + sign * stats.t.isf(level / 2, seeds - 1) * error for level in (0.05, 0.1) for sign in (-1, 1)]
    verdicts = [
        part_verdict(Contrast(*map(float, row), seeds), expect, matters) for row in zip(mean, *ends, strict=True)
    ]
    return np.mean([each == verdict for each in verdicts])


def test_false_verdicts_are_rare():
    """At most 5% each: an effect where there is none, none where there is one that matters (standard error .6%)."""
    assert rate("as claimed", 0, "above") <= 0.025 + 0.015 and rate("opposite", 0, "above") <= 0.025 + 0.015
    assert rate("absent", 1, "above") <= 0.05 + 0.015 and rate("absent", -1, "above") <= 0.05 + 0.015
    assert rate("as claimed", 1, "no_higher") == pytest.approx(0.05, abs=0.015)
    assert rate("opposite", 0, "no_higher") <= 0.025 + 0.015
    assert rate("as claimed", 2.5, "above") > 0.9 and rate("absent", 0, "above", seeds=16) > 0.9


@pytest.mark.slow
def test_false_verdicts_on_shares_are_rare():
    """The same for shares of 400 answers in eight pairs that differ as organisms do (.6 on the logit scale)."""
    rng, studies, seeds, trials, matters = np.random.default_rng(1), 60, 8, 400, 0.05
    verdicts = {"null": [], "at what matters": []}
    for name, extra in (("null", 0.0), ("at what matters", matters)):
        for _ in range(studies):
            logit = rng.normal(np.log(0.03 / 0.97), 0.6, seeds)
            control = 1 / (1 + np.exp(-logit))
            shares = [rng.binomial(trials, share) / trials for share in (control + extra, control)]
            table = pd.concat(rows(arm, share, trials=trials) for arm, share in zip("ab", shares, strict=True))
            result = contrast([A, B], runs_by_arm(table))
            verdicts[name].append((part_verdict(result, "above", matters), part_verdict(result, "no_higher", matters)))
    most = stats.binom.isf(0.001, studies, 0.05)
    above, no_higher = zip(*verdicts["null"], strict=True)
    assert above.count("as claimed") + above.count("opposite") <= most and no_higher.count("opposite") <= most
    above, no_higher = zip(*verdicts["at what matters"], strict=True)
    assert above.count("absent") <= most and no_higher.count("as claimed") <= most


# Seeds needed


@pytest.mark.parametrize(("shift", "expect"), [(0.0, "above"), (-0.8, "no_higher")])
def test_the_number_of_seeds_gives_80_percent_power(shift, expect):
    """With the observed effect and spread, 80% of studies with that many seeds decide, and fewer with one seed less."""
    values = np.array([2.9, 0.1, 1.8, 0.4]) + shift
    matters, result = 1.0, contrast([A], runs_by_arm(rows("a", values)))
    seeds, reason = seeds_needed(result, expect, matters)
    assert not reason
    rng = np.random.default_rng(0)
    bound, side, level = (0, "greater", 0.025) if expect == "above" else (matters, "less", 0.05)
    for number, least, most in ((seeds, 0.79, 1), (seeds - 2, 0, 0.8)):
        draws = rng.normal(values.mean(), np.std(values, ddof=1), (20_000, number))
        p = stats.ttest_1samp(draws, bound, axis=1, alternative=side).pvalue
        assert least <= (p < level).mean() <= most


def test_no_number_of_seeds_without_a_spread():
    result = contrast([A], runs_by_arm(rows("a", [1.0, 1.0])))
    assert seeds_needed(result, "above", 1) == (None, "all runs have the same value")
