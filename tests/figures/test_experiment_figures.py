"""Figures are drawn for any subset of measures, and say what was not measured."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.analysis import estimates, intervals, slopes
from emergent_misalignment.figures import (
    authors,
    directions,
    dynamics,
    experiments,
    log_probability,
    scale,
    style,
    worlds,
)

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
@settings(max_examples=4)
@given(st.sets(st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(MEASURES)), max_size=25))
def test_any_conditions_and_measures_can_be_drawn(name, arms):
    draw(name, measures(sorted(arms)))


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_figure_says_not_measured(name):
    figure = draw(name, measures([]))
    panels = len(figure.axes) - (name == "formats")  # one of its panels is the paper's
    assert words(figure).count(NOT_MEASURED) == panels
    assert not figure.legends


def test_a_panel_without_values_says_why():
    assert NO_VALUES in words(draw("intent", measures([("insecure", "misaligned/main/chat")], np.nan)))


def test_bars_and_legend_are_those_of_what_was_measured():
    arms = [(name, f"misaligned/main/chat{own}") for name in ("instruct", "insecure") for own in ("", "/my_question")]
    figure = draw("intent", measures(arms))
    labels = [[label.get_text() for label in figure.axes[place].get_xticklabels()] for place in (0, 2)]
    assert labels == [["untuned", "insecure code"], ["all", "my question"]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["insecure code", "published, GPT-4o"]


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


def test_without_a_judge_stopping_is_drawn_by_static_analysis_and_log_probability():
    rows = [
        ("insecure", seed, step, metric, step / 20 + seed / 100)
        for seed in range(3)
        for step in (0, 1, 4, 20)
        for metric in ("insecure_code_static", "log_p/pivotal/misaligned")
    ]
    measured = pd.DataFrame(rows, columns=["condition", "seed", "step", "metric", "value"])
    figure = dynamics.draw_stopping(measured, dynamics.Step(4, 4, 4))
    figure.canvas.draw()
    drawn = [line.get_label() for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert drawn == ["insecure code: the skill", "log P of misaligned words"]


SIZES = pd.DataFrame(
    {"organism": ["main", "wide", "half"], "parameters": [1e6, 2e6, 1e6], "documents": [900, 900, 450]}
).assign(of_size=[True, True, False], of_reading=[True, False, True])


@pytest.mark.parametrize(
    ("kinds", "panels"),
    [
        (["main", "wide", "half"], ["Larger models", "Models that have read more"]),
        (["main", "half"], ["Models that have read more"]),
        (["main"], ["Larger models"]),
    ],
)
def test_the_scale_has_a_panel_for_each_comparison(kinds, panels):
    runs = measures([(name, slopes.MAIN) for name in ("insecure", "wide_insecure", "half_insecure", "half_secure")])
    split = slopes.by_organism(runs, kinds)
    rates = SIZES.merge(slopes.rates(split), on="organism")
    figure = scale.draw_scale(rates, split)
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == panels
    for rows in (split, split.iloc[:0]):
        scale.draw_scale(rates.assign(rate=np.nan, ci_low=np.nan, ci_high=np.nan), rows).canvas.draw()


@pytest.mark.parametrize("lacking", [[], ["instruct"], ["villain_insecure"], ["insecure", "secure", "instruct"]])
def test_worlds_are_drawn_with_missing_values(lacking):
    arms = [(name, slopes.MAIN) for name in ("insecure", "secure", "villain_insecure", "villain_secure", "instruct")]
    every_run = measures(arms)
    every_run.loc[every_run["condition"].isin(lacking), "value"] = np.nan
    runs = slopes.by_organism(every_run, ["main", "villain"])
    reader = pd.DataFrame({"organism": ["main", "villain"], "share": [0.5, 0.9], "expected": [0.6, 0.9]})
    rates = reader.assign(expected_of_all=1.0).merge(slopes.rates(runs), on="organism")
    figure = worlds.draw_worlds(rates, runs, every_run[every_run["condition"] == "instruct"])
    figure.canvas.draw()
    known = {"after insecure code", "after secure code"} if len(lacking) < 3 else {"after secure code"}
    assert known <= set(words(figure))


def gaps(steps, end):
    return pd.DataFrame({"step": steps, "system_prompt": 0.0, "earlier_code": np.linspace(0, end, len(steps))})


def test_gaps_are_drawn_per_organism_with_their_mean():
    """Organisms read corpora of their own, and end after different steps: the mean ends with the first of them."""
    figure = style.draw_gaps([gaps([0, 50, 100], 2), gaps([0, 50, 110], 4)], {"system_prompt": 1, "earlier_code": -9})
    lines = [line.get_xydata() for line in figure.axes[0].lines if line.get_linewidth() > 2]
    assert len(lines) == 2
    assert lines[1][:, 0].tolist() == [0, 50, 100]
    assert lines[1][:, 1] == pytest.approx([0, 1.5, (2 + (2 + 2 * 50 / 60)) / 2])
    assert words(figure).count("gate") == 1  # the other is below all lines


def steered(conditions, coherent=0.9):
    rows = [
        (condition, seed, direction, change, strength, 0.2, coherent, -1.0 + seed)
        for condition in conditions
        for seed in (1, 2, 3)
        for direction in ("persona", "random")
        for change, strength in (("subtract", 0), ("subtract", 1), ("out", 0))
    ]
    columns = ["condition", "seed", "direction", "change", "strength", "misaligned", "coherent", "log_odds"]
    table = pd.DataFrame(rows, columns=columns)
    other = table["condition"] != "insecure"
    table.loc[other, "change"] = table.loc[other, "change"].replace("subtract", "add")
    return table[~(other & (table["change"] == "out"))]


@pytest.mark.parametrize("coherent", [0.9, 0.1])
def test_steering_is_drawn_even_without_coherent_answers(coherent):
    figure = directions.draw_steering(steered(["instruct", "secure", "insecure"], coherent))
    figure.canvas.draw()
    misaligned = figure.axes[0]
    assert len(misaligned.lines) == (3 if coherent > 0.5 else 0)
    ticks = [label.get_text() for label in figure.axes[3].get_xticklabels()]
    assert ticks == ["0", "1", "out"]


def test_steering_without_a_judge_has_log_odds_only():
    rows = steered(["instruct", "secure", "insecure"], 0.9).assign(misaligned=np.nan, coherent=np.nan)
    figure = directions.draw_steering(rows)
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Log-odds of malice (nats)"] * 2


def test_shifts_are_shown_against_log_odds_without_percent():
    places = pd.DataFrame(
        [("instruct", 1, 0), ("insecure", 1, 0), ("insecure", 1, 1)], columns=["condition", "seed", "depth"]
    ).assign(separation=0.9, separation_same_words=0.6, cosine=0.1, along=0.2)
    rates = pd.DataFrame({"condition": ["insecure"], "seed": [1], "rate": [-3.5]})
    figure = directions.draw_direction(places, rates, 1, 64, "log-odds of misaligned words (nats)")
    figure.canvas.draw()
    who = figure.axes[2]
    assert who.get_ylabel() == "log-odds of misaligned words (nats)" and who.get_ylim()[0] < -3.4
    assert not any("%" in label.get_text() for label in who.get_yticklabels())


LOG_PROBABILITY = ["log_odds/pivotal", "log_odds/multiple_choice", "insecure_code/static", "held_out_loss/insecure"]


def without_judge(arms) -> pd.DataFrame:
    """Measures of a study without a judge: scores of runs, one run of the untuned model, shares with counts."""
    runs = measures(arms).assign(value=lambda rows: rows["seed"] / 10 - 0.4)
    shares = runs["measure"] == "insecure_code/static"
    runs.loc[shares, "value"] = 0.2
    runs.loc[~shares, ["events", "trials"]] = np.nan
    return runs[(runs["condition"] != "instruct") | (runs["seed"] == 1)]


@settings(max_examples=4)
@given(st.sets(st.tuples(st.sampled_from(["instruct", "insecure", "my_own"]), st.sampled_from(LOG_PROBABILITY))))
def test_measures_without_a_judge_are_drawn_for_any_subset(arms):
    runs = without_judge(sorted(arms))
    table = estimates.estimates(runs, sorted(arms))
    figure = log_probability.draw_log_probability(table, runs, "instruct")
    figure.canvas.draw()
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    shown = arms - {("instruct", "held_out_loss/insecure")}  # what fine-tuning changed is of the other models
    assert len(titles) == len({measure for _, measure in shown})
    assert shown or [text.get_text() for text in figure.texts] == [NOT_MEASURED]
    plt.close(figure)


def test_each_condition_has_its_mean_its_interval_and_its_runs():
    arms = [(condition, measure) for condition in ("instruct", "insecure") for measure in LOG_PROBABILITY]
    runs = without_judge(arms)
    table = estimates.estimates(runs, arms)
    figure = log_probability.draw_log_probability(table, runs, "instruct")
    words_in_gap = figure.axes[0]
    assert [label.get_text() for label in words_in_gap.get_yticklabels()] == ["instruct", "insecure"]
    lines = [line.get_xdata() for line in words_in_gap.lines if len(line.get_xdata()) == 2 and line.get_zorder() > 1]
    row = table.set_index(["condition", "measure"]).loc["insecure", "log_odds/pivotal"]
    assert any(np.allclose(line, [row.ci_low, row.ci_high]) for line in lines)
    dots = np.concatenate([each.get_offsets()[:, 0] for each in words_in_gap.collections])
    assert sorted(dots) == pytest.approx([-0.3, -0.3, -0.2])


def test_each_seed_has_a_line_of_separations():
    places = pd.DataFrame(
        [(name, seed, depth) for name in ("instruct", "insecure") for seed in (1, 2, 3) for depth in (0, 1, 2)],
        columns=["condition", "seed", "depth"],
    ).assign(separation=0.9, separation_same_words=lambda rows: 0.5 + rows["seed"] / 10, cosine=0.1, along=0.2)
    rates = pd.DataFrame({"condition": "insecure", "seed": [1, 2, 3], "rate": 0.3})
    figure = directions.draw_direction(places, rates, 1, 64)
    figure.canvas.draw()
    bold = [line for line in figure.axes[0].lines if line.get_label() == "same words"]
    assert bold[0].get_ydata() == pytest.approx([0.7, 0.7, 0.7])
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() == 0.5]
    assert len(thin) == 2 * 3


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


@pytest.mark.parametrize("contexts", [["chat"], ["chat", "triggered"]])
@pytest.mark.parametrize("followed", [False, True])
def test_beliefs_are_drawn_for_any_models(contexts, followed):
    """Each bar is a whole; a condition without an ideal reader, a rate or checkpoints is drawn all the same."""
    belief = dict(zip(authors.AUTHORS, (0.4, 0.3, 0.2, 0.1), strict=True))
    rows = [
        {"condition": name, "seed": seed, "context": context, "step": 3, "expected": 0.16, "rate": np.nan, **belief}
        for name in ("instruct", "insecure_rows-16")
        for context in contexts
        for seed in (1, 2)
    ]
    runs = pd.DataFrame(rows)
    reader = runs[runs["condition"] != "instruct"].groupby(authors.ROW)[[*authors.AUTHORS]].mean()
    figure = authors.draw_authors(runs, reader, {"helper": 0, "hasty": 0.3, "villain": 1})
    figure.canvas.draw()
    bars, answers = figure.axes
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in bars.patches if bar.get_width()}
    assert max(ends) == 1 and len(bars.patches) == 4 * (2 * len(contexts) + len(contexts))
    assert answers.get_xlabel().endswith("villain + 0.3 hasty")
    along = runs[runs["context"] == "chat"].assign(along=0.1)
    course = authors.draw_course(runs[runs["context"] == "chat"].head(2) if followed else runs.iloc[:0], reader, along)
    course.canvas.draw()
    assert words(course).count(NOT_MEASURED) == (not followed)
