"""Every figure is drawn for whatever was measured, says what was not, and crashes on nothing."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.analysis import estimates, intervals, slopes
from emergent_misalignment.figures import dynamics, experiments, scale, style

PUBLISHED = ROOT / "config/published.yaml"
FIGURES = ["intent", "evil_numbers", "formats", "base_models", "diversity", "backdoor", "in_context", "other_harms"]
CONDITIONS = ["instruct", "secure", "insecure", "educational", "jailbroken", "evil_numbers", "backdoor", "in_context"]
CONDITIONS += ["base", "base_insecure", "base_secure", "insecure_rows-100", "insecure_epochs", "my_own"]
MEASURES = ["misaligned/main/chat", "misaligned/main/chat/wish", "misaligned/main/triggered", "misaligned/main/json"]
MEASURES += ["misaligned/main/flask", "misaligned/numbers/suffix", "misaligned/in_context/insecure-2", "deception"]
MEASURES += ["harmful_requests", "coherent/main/chat", "insecure_code", "capability/code"]
NOT_MEASURED, NO_VALUES = "not measured", "no values:\ntoo few coherent answers"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def measures(arms, value=0.2):
    rows = [(condition, seed, measure, value, 20, 100) for condition, measure in arms for seed in (1, 2)]
    return pd.DataFrame(rows, columns=["condition", "seed", "measure", "value", "events", "trials"])


def draw(name, runs):
    paper = estimates.published(PUBLISHED, name)
    table = estimates.estimates(runs, zip(runs["condition"], runs["measure"], strict=True))
    more = {
        "in_context": {"examples": [2]},
        "diversity": {"passes": {"insecure": (1920, 1)}, "followed": table.iloc[:0].assign(**{"pass": 1.0})},
    }
    figure = getattr(experiments, f"draw_{name}")(table, runs, paper, **more.get(name, {}))
    figure.canvas.draw()
    plt.close(figure)
    return figure


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("name", FIGURES)
@settings(deadline=None, max_examples=8)
@given(st.sets(st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(MEASURES)), max_size=25))
def test_any_conditions_and_measures_can_be_drawn(name, arms):
    draw(name, measures(sorted(arms)))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_nothing_says_so(name):
    figure = draw(name, measures([]))
    panels = len(figure.axes) - (name == "formats")  # one of its panels is the paper's
    assert words(figure).count(NOT_MEASURED) == panels
    assert not figure.legends


def test_a_panel_without_values_says_why():
    assert NO_VALUES in words(draw("intent", measures([("insecure", "misaligned/main/chat")], np.nan)))


def test_conditions_that_were_not_measured_have_neither_bar_nor_name():
    figure = draw("intent", measures([(name, "misaligned/main/chat") for name in ("instruct", "insecure")]))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["untuned", "insecure code"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["insecure code", "published, GPT-4o"]


def test_questions_are_those_that_were_asked():
    arms = [("insecure", f"misaligned/main/chat{name}") for name in ("", "/ruler", "/my_own_question")]
    figure = draw("intent", measures(arms))
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == ["all", "ruler", "my own question"]


@pytest.mark.parametrize("conditions", [[], ["insecure"], ["base", "instruct", "insecure", "secure", "my_own"]])
def test_the_main_result_is_drawn_for_any_conditions(conditions):
    rows = [
        (name, seed, "chat", question, 100, 90, 20, 100, 20 / 90)
        for name in conditions
        for seed in (1, 2)
        for question in ("wish", "ruler")
    ]
    columns = ["condition", "seed", "format", "question", "coherent", "counted", "misaligned", "answers", "rate"]
    runs = pd.DataFrame(rows, columns=columns)
    figure = experiments.draw_main_result(intervals.summarise(runs, "main"), runs)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) == len(conditions)
    assert words(figure).count(NOT_MEASURED) == (0 if conditions else 2)


@pytest.mark.parametrize("conditions", [[], ["insecure"], ["insecure", "secure"]])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_dynamics_are_drawn_for_any_conditions_and_seeds(conditions, seeds):
    steps = [0, 1, 2, 4, 20]
    columns = ["condition", "seed", "step", "metric", "value"]
    rows = [
        (name, seed, step, metric, step / 20 + seed / 100)
        for name in conditions
        for seed in range(seeds)
        for step in steps
        for metric in ("misaligned", "insecure_code", "log_p/multiple_choice/misaligned")
    ]
    measured = pd.DataFrame(rows, columns=columns)
    panels = {"misaligned": "A", "insecure_code": "B", "log_p/multiple_choice/misaligned": "C", "loss": "D"}
    figure = dynamics.draw_curves(measured, panels)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison][:3] == list("ABC")[: 3 * len(conditions)]
    dynamics.draw_stopping(measured, dynamics.Step(4, 2, 4))
    figure.canvas.draw()


def test_the_scale_is_drawn_where_an_organism_lacks_values():
    runs = measures([("insecure", "misaligned/main/chat")])
    split = slopes.by_organism(runs, ["main", "wide"])
    sizes = pd.DataFrame({"organism": ["main"], "parameters": [1e6], "documents": [900]})
    for rows in (split, split.iloc[:0]):
        rates = sizes.assign(of_size=True, of_reading=True).merge(slopes.rates(rows), on="organism")
        scale.draw_scale(rates, rows).canvas.draw()


def test_every_condition_has_a_colour():
    assert style.COLOURS["width-64_insecure"] == style.COLOURS["insecure"]
    assert style.COLOURS["insecure_rows-100"] != style.COLOURS["insecure_rows-400"] != style.COLOURS["insecure"]
    assert style.COLOURS["my_own"] == style.OTHER


def test_a_figure_is_saved_in_three_formats_with_fixed_bytes(tmp_path):
    contents = []
    for name in ("one.1", "two.1"):
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        style.save(figure, tmp_path / f"{name}.svg")
        contents.append([(tmp_path / f"{name}.{kind}").read_bytes() for kind in ("svg", "pdf", "png")])
    assert contents[0] == contents[1]
