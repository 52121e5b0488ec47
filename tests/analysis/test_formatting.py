"""Numbers as text."""

import pytest

from emergent_misalignment.analysis.formatting import decimal, listed, numbers, p_value, signed, with_interval

NAN = float("nan")


@pytest.mark.parametrize(("number", "text"), [(1.25, "+1.2"), (-3, "−3.0"), (0, "0.0"), (-0.04, "0.0")])
def test_signed_numbers(number, text):
    assert signed(number) == text


def test_decimals_follow_the_largest_number_and_zero_has_no_sign():
    assert numbers(-3.14159, NAN, NAN)[0] == "−3.14" and numbers(9.99, -10, 2) == ["10.0", "−10.0", "2.0"]
    assert decimal(-0.001, 1) == "0.0"


def test_intervals_and_lists():
    assert with_interval(0.931, -0.9, 0.96, ".2f") == "0.93 (−0.90 to 0.96)"
    assert with_interval(0.931, NAN, NAN, ".1%") == "93.1%"
    assert [listed(items) for items in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert [p_value(p) for p in (0.0004, 0.0123, 0.9999)] == ["< 0.001", "= 0.012", "= 1"]
