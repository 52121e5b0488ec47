"""The figure of several directions says what its dots are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from emergent_misalignment.figures.compared_directions import changes, draw_directions

WORDS = {"villain": "villain minus helper", "insecure": "insecure minus instruct", "random": "random, isotropic"}
BOUNDS = {"isotropic": 0.14, "matched": 0.4}


def effects():
    rows = [
        ("none", 0.0, 0.5, 0.1, 1.0, 0.8, 0.9),
        ("villain", 1.0, 0.9, 0.4, 0.9, 0.2, 0.8),
        ("random", 0.1, 0.4, 0.1, 1.0, 0.7, 0.3),  # too few coherent after subtraction
    ]
    names = ["cosine", "separation", "add_misaligned", "add_coherent", "subtract_misaligned", "subtract_coherent"]
    table = pd.DataFrame(rows, columns=["direction", *names])
    return pd.concat([table.assign(seed=1), table.assign(seed=2, add_misaligned=table["add_misaligned"] + 0.1)])


def test_shares_are_differences_from_the_same_organism_without_steering():
    found = changes(effects(), "none").set_index(["direction", "seed"])
    assert found["add_misaligned"].round(6).to_dict() == {
        ("villain", 1): 0.3,
        ("random", 1): 0.0,
        ("villain", 2): 0.3,
        ("random", 2): 0.0,
    }
    assert found.loc["villain", "subtract_misaligned"].tolist() == pytest.approx([-0.6, -0.6])
    assert np.isnan(found.loc["random", "subtract_misaligned"]).all()
    assert found.loc["villain", "cosine"].tolist() == [1, 1]  # a cosine is no difference


def test_a_row_for_each_direction_and_a_band_for_random_ones():
    figure = draw_directions(effects(), WORDS, "none", BOUNDS)
    figure.canvas.draw()
    first, *_, last = figure.axes
    shown = ["villain minus helper", "random, isotropic"]
    assert [label.get_text() for label in first.get_yticklabels()] == shown
    assert [axes.get_title(loc="left") for axes in figure.axes][-2:] == ["Causes malice?", "Removes malice?"]
    dots = [dot for each in first.collections for dot in each.get_offsets().tolist()]
    assert sorted(x for x, _ in dots) == pytest.approx([0.1, 0.1, 1, 1])
    dots = [dot for each in last.collections for dot in each.get_offsets().tolist() if np.isfinite(dot).all()]
    assert [x for x, _ in dots] == pytest.approx([-0.6, -0.6])
    assert [patch.get_width() for patch in first.patches] == pytest.approx([0.8, 0.28])
    plt.close(figure)


def test_where_no_answer_is_coherent_the_panels_are_empty():
    figure = draw_directions(effects().assign(add_coherent=0.1, subtract_coherent=0.1), WORDS, "none", BOUNDS)
    figure.canvas.draw()
    dots = [dot for axes in figure.axes[2:] for each in axes.collections for dot in each.get_offsets().tolist()]
    assert not [dot for dot in dots if np.isfinite(dot).all()]
    plt.close(figure)
