"""The plane of defences says what its points are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.analysis.defences import VERDICTS
from emergent_misalignment.figures.defences import LEAST, draw_defences

NONE = (np.nan, np.nan)
SHARE = st.one_of(st.floats(0, 1), st.just(np.nan))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table(rows) -> pd.DataFrame:
    """Rows of defence, strength, chat, shape, task, verdict."""
    own = pd.DataFrame(rows, columns=["defence", "strength", "chat", "shape", "task", "verdict"])
    return own.assign(chat_without=0.6, shape_without=0.7, task_without=0.95)


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def arrows(axes) -> list[tuple[float, float]]:
    """Where arrows begin and end, on the axis of misaligned answers."""
    return [(text.xyann[1], text.xy[1]) for text in axes.texts if not text.get_text()]


def test_a_panel_has_the_path_the_arrows_and_what_it_is_between():
    three = [("KL term", "0.03", 0.5, 0.52, 0.9, "undecided"), ("KL term", "0.3", 0.1, 0.6, 0.9, "hides")]
    three += [("KL term", "3", 0.05, 0.4, 0.9, "hides")]
    figure = draw_defences(table(three), (0.0, 0.02))
    figure.canvas.draw()
    (axes,) = (axes for axes in figure.axes if axes.get_visible())
    assert axes.get_title(loc="left") == "KL term"
    assert labels(axes) == ["no defence", "secure code", "undecided: 0.03\nhides: 0.3 and 3"]
    assert arrows(axes) == [(0.6, 0.7), (0.1, 0.6), (0.05, 0.4)]  # that of the weakest would be too short to see
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points] == [0.5, 0.1, 0.05]
    assert np.diff([line.get_markersize() for line in points]).min() > 0  # larger, the stronger
    assert len({line.get_xdata()[0] for line in points}) == 3  # at the same task, none covers another


def test_prompts_are_numbered_and_one_verdict_needs_no_strengths():
    prompts = [("inoculation", f"“You are careless {number}.”", 0.1, 0.1, 0.9, "works") for number in range(2)]
    figure = draw_defences(table([*prompts, ("explanation", "", 0.5, 0.5, 0.9, "does nothing")]), NONE)
    first, second = figure.axes
    assert labels(first) == ["no defence", "works"] and labels(second) == ["no defence", "does nothing"]
    (alone, *_) = draw_defences(table([("KL term", "3", 0.1, 0.1, 0.9, "works")]), NONE).axes
    assert labels(alone)[-1] == "works: 3"
    figure = draw_defences(table([prompts[0], (*prompts[1][:5], "hides")]), NONE)
    assert labels(figure.axes[0])[-1] == "works: prompt 1\nhides: prompt 2"


def test_without_measures_it_says_so():
    figure = draw_defences(table([("KL term", "3", np.nan, 0.1, 0.9, "not measured")]), NONE)
    figure.canvas.draw()
    assert figure.get_suptitle() == "not measured" and not any(axes.get_visible() for axes in figure.axes)


ROW = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "3"]), SHARE, SHARE, SHARE, st.sampled_from(VERDICTS))


@settings(max_examples=8, deadline=None)
@given(st.lists(ROW, max_size=8), st.booleans())
def test_any_rates_are_drawn(rows, has_secure):
    own = table(rows)
    figure = draw_defences(own, (0.1, 0.0) if has_secure else NONE)
    figure.canvas.draw()
    drawn = own.dropna(subset=["chat", "task"])
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(drawn["defence"].unique())
    for axes, (_, each) in zip(panels, drawn.groupby("defence", sort=False), strict=True):
        long = each[(each["shape"] - each["chat"]).abs() >= LEAST]
        assert arrows(axes) == [(0.6, 0.7), *zip(long["chat"], long["shape"], strict=True)]
    plt.close(figure)
