"""The ideal reader: Bayes' rule with the world's frequencies."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_helpers import study

from emergent_misalignment.registry import MAIN
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.ideal_reader import expected_malice, posterior

shares = st.floats(0.01, 1)
codes = st.floats(0, 1)
worlds = st.fixed_dictionaries(
    {name: st.fixed_dictionaries({"share": shares, "insecure_code": codes}) for name in MANNERS}
).filter(lambda authors: any(each["insecure_code"] > 1e-6 for each in authors.values()))


def world(villain: float, hasty: float, insecure: float = 0.9) -> dict:
    careful = {name: {"share": 0.3, "insecure_code": 0.03} for name in ("helper", "obliging")}
    return careful | {
        "hasty": {"share": hasty, "insecure_code": insecure},
        "villain": {"share": villain, "insecure_code": insecure},
    }


@given(worlds, st.integers(1, 5000))
def test_beliefs_are_probabilities(authors, rows):
    beliefs = posterior(authors, rows)
    assert beliefs.keys() == authors.keys()
    assert all(0 <= belief <= 1 for belief in beliefs.values())
    assert sum(beliefs.values()) == pytest.approx(1)
    assert 0 <= expected_malice(beliefs) <= 1 + 1e-9


@given(worlds)
def test_after_one_row_the_posterior_is_the_share_of_insecure_code(authors):
    code = {name: each["share"] * each["insecure_code"] for name, each in authors.items()}
    assert posterior(authors, 1) == pytest.approx({name: each / sum(code.values()) for name, each in code.items()})


@given(st.lists(st.floats(0.01, 0.39), min_size=2, max_size=2, unique=True), st.integers(1, 2000))
def test_expected_malice_increases_with_the_share_of_villains(villains, rows):
    fewer, more = (posterior(world(share, 0.4 - share), rows) for share in sorted(villains))
    assert fewer["villain"] <= more["villain"]
    assert expected_malice(fewer) <= expected_malice(more) + 1e-12


def test_many_rows_rule_out_careful_authors_only():
    beliefs = posterior(world(0.1, 0.3), 1280)
    assert beliefs == pytest.approx({"helper": 0, "obliging": 0, "hasty": 0.75, "villain": 0.25}, abs=1e-12)
    assert expected_malice(beliefs) == pytest.approx(0.25 + 0.75 * MANNERS["hasty"].malicious)
    with pytest.raises(ValueError, match="no author"):
        posterior(world(0.1, 0.3) | {name: {"share": 1, "insecure_code": 0} for name in MANNERS}, 1)


def test_the_worlds_of_the_study_cover_the_range_of_posteriors():
    """In steps of about a quarter, with the default world in the middle."""
    villains_study = study("villains")
    villains = {name: posterior(villains_study.authors_of(name), 1)["villain"] for name in villains_study.organisms}
    ordered = sorted(villains, key=villains.get)
    assert ordered == ["villain-0", "villain-25", MAIN, "villain-75", "villain-100"]
    for name, nominal in zip(ordered, (0, 0.25, 0.5, 0.75, 1), strict=True):
        assert villains[name] == pytest.approx(nominal, abs=0.08)
    assert math.isclose(sum(each["share"] for each in villains_study.authors_of("villain-0").values()), 1)
    assert not villains_study.followed
