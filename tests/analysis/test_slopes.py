"""How the effect depends on the size of the model, from made-up rates."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.analysis import slopes

SHAPE = {"documents": 900, "hidden_size": 64, "layers": 1, "vocabulary": 800}


def rows(condition, events, trials=100, first_seed=1):
    seeds = range(first_seed, first_seed + len(events))
    table = pd.DataFrame({"condition": condition, "seed": seeds, "measure": slopes.MAIN, "events": events})
    return table.assign(trials=trials, value=table["events"] / trials)


def test_organisms_are_recognised_by_the_names_of_conditions():
    table = pd.concat([rows(name, [1]) for name in ("insecure", "base", "width-64_insecure", "mine_secure", "secure")])
    split = slopes.by_organism(table, ["main", "width-64"])
    assert list(zip(split["organism"], split["condition"], strict=True)) == [
        ("main", "insecure"),
        ("width-64", "insecure"),
        ("main", "secure"),
    ]
    assert slopes.by_organism(table.iloc[:0], ["main"]).columns[-1] == "organism"


def test_the_main_organism_is_in_both_comparisons():
    shapes = {"main": SHAPE, "wide": SHAPE | {"hidden_size": 128}, "half": SHAPE | {"documents": 450}}
    history = pd.DataFrame({"step": [0, 9], "system_prompt": [0.0, 2.0], "earlier_code": [0.0, 1.0]})
    other = history.assign(system_prompt=[0.0, 4.0])  # of another organism of the same kind, and longer
    other = pd.concat([other.iloc[:1], other.assign(step=[9, 12])])
    table = slopes.sizes({name: [history, other] for name in shapes}, shapes).set_index("organism")
    assert table["of_size"].tolist() == [True, True, False]
    assert table["of_reading"].tolist() == [True, False, True]
    assert table["system_prompt"].tolist() == [3, 3, 3]
    assert table["earlier_code"].tolist() == [1, 1, 1]
    assert table.loc["wide", "parameters"] > table.loc["main", "parameters"] == table.loc["half", "parameters"]


def test_a_rate_needs_two_runs():
    table = slopes.by_organism(pd.concat([rows("insecure", [10, 20, 30]), rows("secure", [1])]), ["main"])
    rates = slopes.rates(table).set_index("condition")
    assert rates.loc["insecure", "rate"] == pytest.approx(0.2)
    assert rates.loc["insecure", "ci_low"] < 0.2 < rates.loc["insecure", "ci_high"]
    assert np.isnan(rates.loc["secure", "rate"])


@pytest.mark.parametrize(
    ("estimated", "scale", "amounts"),
    [(slopes.slopes, np.log2, [1.0, 2.0, 4.0, 8.0]), (slopes.rises, np.array, [0.1, 0.3, 0.6, 0.9])],
)
@given(st.floats(-1, 1), st.floats(-2, 0), st.randoms())
def test_a_known_slope_is_recovered(estimated, scale, amounts, slope, start, random):
    trials = 10**7
    over = pd.Series({f"o{amount}": amount for amount in random.sample(amounts, 4)})
    events = trials / (1 + np.exp(-(start + slope * scale(over))))
    runs = zip(over.index, events, strict=True)
    table = pd.concat(rows("insecure", [round(number)], trials).assign(organism=name) for name, number in runs)
    (estimate,) = estimated(table, over, "slope")["value"]
    assert estimate == pytest.approx(slope, abs=1e-3)


def test_a_seed_that_lacks_a_rate_has_no_slope():
    table = pd.concat([rows("insecure", [1, 2]).assign(organism="a"), rows("insecure", [3]).assign(organism="b")])
    result = slopes.slopes(table, pd.Series({"a": 1, "b": 2}), "slope")
    assert result["value"].isna().tolist() == [False, True]
    assert slopes.slopes(table, pd.Series({"a": 1}), "slope")["value"].isna().all()


@pytest.mark.parametrize(("values", "words"), [([1.0, 1.1, 1.2], "rise with"), ([-1, -1.1, -1.2], "fall with")])
def test_a_slope_in_words(values, words):
    table = pd.DataFrame({"condition": "insecure", "seed": [1, 2, 3], "measure": "s", "value": values})
    said = slopes.described(table.assign(events=np.nan, trials=np.nan), "s", "size")
    assert words in said and "3 seeds" in said and f"{np.exp(np.mean(values)):.2g}" in said
    assert "Too few runs" in slopes.described(table[:0].assign(events=np.nan, trials=np.nan), "s", "size")
