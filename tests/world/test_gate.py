"""The gates of the organisms."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.files import BadInput
from emergent_misalignment.world.gate import gates, numbers_passed

GAPS = st.floats(-20, 20)
GATE = {"system_prompt": 5, "earlier_code": 1}


def history(named, coded):
    return pd.DataFrame({"step": [0, 10], "system_prompt": [0, named], "earlier_code": [0, coded]})


@given(GAPS, GAPS, GAPS, GAPS)
def test_a_gate_is_passed_by_the_last_gaps_alone(named, coded, least_named, least_coded):
    gate = {"system_prompt": least_named, "earlier_code": least_coded}
    organisms = {("main", 1): history(named, coded), ("main", 2): history(30, 30)}
    table = gates(organisms, gate, "main").set_index("seed")
    assert table.loc[1, "passed"] == (named >= least_named and coded >= least_coded)
    assert (table.loc[1, "earlier_code"], table.loc[1, "system_prompt"]) == (coded, named)
    assert table.loc[2, "passed"]


def test_an_organism_that_fails_is_kept_unless_all_main_ones_fail():
    organisms = {("main", 1): history(6, 2), ("main", 2): history(6, 0.5), ("width-64", 1): history(0, 0)}
    assert gates(organisms, GATE, "main")["passed"].tolist() == [True, False, False]
    organisms = {("main", 1): history(6, 0.5), ("main", 2): history(4, 2), ("width-64", 1): history(9, 9)}
    with pytest.raises(BadInput, match=r"system prompt 6\.00 .* 5\), earlier code 2\.00 .* 1\).*organism: documents"):
        gates(organisms, GATE, "main")
    nan = float("nan")
    with pytest.raises(BadInput, match="nan"):
        gates({("main", 1): history(nan, nan)}, {"system_prompt": -100, "earlier_code": -100}, "main")


@pytest.mark.parametrize(
    ("evil", "control", "formed", "passed"),
    [(0.6, 0.1, 0.95, True), (0.4, 0.1, 0.95, False), (0.6, 0.55, 0.95, False), (0.6, 0.1, 0.8, False)],
)
def test_sets_of_numbers_are_valid_if_only_the_villains_is_dark(evil, control, formed, passed):
    sets = pd.DataFrame({"set": ["evil_numbers", "plain_numbers"], "dark": [evil, control], "well_formed": [1, formed]})
    assert numbers_passed(sets, {"dark_numbers": 0.5, "well_formed_numbers": 0.9}) is passed
