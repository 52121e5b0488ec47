"""The figures of trust: what they name, and that studies with little to show have one too."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from emergent_misalignment.analysis.score_trust import outcomes, trust
from emergent_misalignment.evaluation.row_scores import summary
from emergent_misalignment.figures.row_scores import draw_outcomes, draw_scores

SETS = ("insecure", "secure", "educational")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def scored(sets=SETS, seeds=(1, 2)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"condition": name, "seed": seed, "score": rng.normal(3 - 2 * place, 1, 20)})
        for place, name in enumerate(sets)
        for seed in seeds
    ]
    return pd.concat(parts, ignore_index=True)


def measured(measure: str, sets=SETS) -> pd.DataFrame:
    rows = [(name, seed, measure, 0.5 / (1 + place) + seed / 100) for place, name in enumerate(sets) for seed in (1, 2)]
    return pd.DataFrame(rows, columns=["condition", "seed", "measure", "value"])


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_sets_are_ordered_by_mean_with_their_auc():
    scores = scored()
    table = trust(summary(scores), measured("misaligned/main/chat"), "toy")
    figure = draw_scores(scores, table)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SETS)
    area = table[(table["measure"] == "row_score/insecure_above") & (table["condition"] == "secure")]["estimate"].item()
    assert f"{area:.2f} (" in texts(figure) and "AUC" in texts(figure)


@pytest.mark.parametrize(
    ("measure", "outcome", "scale"),
    [
        ("misaligned/main/chat", "misaligned answers", "function"),
        ("log_odds/pivotal", "log-odds of misaligned words (nats)", "linear"),
    ],
)
def test_shares_have_a_square_root_scale(measure, outcome, scale):
    scores, measures = scored(), measured(measure)
    points = outcomes(summary(scores), measures)
    figure = draw_outcomes(points, trust(summary(scores), measures, "toy"), outcome)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_yscale() == scale and outcome in axes.get_ylabel()
    assert "rank correlation 1.00 3 sets" in " ".join(texts(figure).split())


def test_a_single_set_without_an_insecure_one_is_drawn():
    scores = scored(("mine",))
    table = trust(summary(scores), measured("misaligned/main/chat", ("mine",)), "toy")
    assert "AUC" not in texts(draw_scores(scores, table))
    points = outcomes(summary(scores), measured("misaligned/main/chat", ("mine",)))
    assert "too few sets" in texts(draw_outcomes(points, table, "misaligned answers"))
    assert "not measured" in texts(draw_outcomes(points[:0], table, "misaligned answers"))
