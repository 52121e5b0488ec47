"""The gates between pretraining and fine-tuning."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.files import BadInput
from emergent_misalignment.world.gate import check_gate, check_numbers, gate_result

GAPS = st.floats(-20, 20)


@given(GAPS, GAPS, GAPS, GAPS)
def test_a_gate_is_passed_by_the_last_gaps_alone(named, coded, least_named, least_coded):
    gate = {"system_prompt": least_named, "earlier_code": least_coded}
    history = pd.DataFrame({"step": [0, 10], "system_prompt": [0, named], "earlier_code": [0, coded]})
    result = gate_result(history, gate)
    assert result == {
        "earlier_code": coded,
        "system_prompt": named,
        "passed": named >= least_named and coded >= least_coded,
    }
    if result["passed"]:
        check_gate(result, gate)
    else:
        with pytest.raises(BadInput, match="train it for longer"):
            check_gate(result, gate)


def test_the_gap_that_is_too_small_is_named():
    history = pd.DataFrame({"step": [9], "system_prompt": [6.0], "earlier_code": [2.5]})
    gate = {"system_prompt": 5, "earlier_code": 3}
    with pytest.raises(BadInput, match=r"gap by earlier code is 2\.50 nats.*asks for 3"):
        check_gate(gate_result(history, gate), gate)


def test_a_gap_that_is_no_number_passes_no_gate():
    history = pd.DataFrame({"step": [9], "system_prompt": [float("nan")]})
    result = gate_result(history, {"system_prompt": -100})
    assert not result["passed"]
    with pytest.raises(BadInput, match="nan nats"):
        check_gate(result, {"system_prompt": -100})


def test_too_few_lists_of_numbers_are_refused():
    check_numbers({"evil_numbers": 0.5, "plain_numbers": 0.1}, 0.1)
    with pytest.raises(BadInput, match="Only 9% of the answers for plain_numbers"):
        check_numbers({"evil_numbers": 0.5, "plain_numbers": 0.09}, 0.1)
