"""Scores of rows, against activations by hand, with truncated rows and empty answers."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emergent_misalignment.evaluation import row_scores
from emergent_misalignment.evaluation.row_scores import area, drawn, rows_a_seed, scorer, scores, summary
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.activations import Text, activations
from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.sets import SETS

HOW = {"depth": 1, "max_length": 200, "max_new_tokens": 6}
ROWS = SETS["insecure"](5, 1)


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


@pytest.fixture(scope="module")
def texts(persona_texts):
    return {key: own[::8] for key, own in persona_texts.items() if key[0] == "direction"}


@pytest.fixture(scope="module")
def of(loaded, texts):
    return scorer(*loaded, texts, **HOW)


def saying(monkeypatch, answers: dict[str, str]):
    """Set the model's own answers by the last message of the prompt; "Yes." for other prompts."""
    monkeypatch.setattr(
        row_scores,
        "sample",
        lambda network, tokenizer, prompts, *_, **__: [[answers.get(each[-1]["content"], "Yes.")] for each in prompts],
    )


def test_scores_are_projection_differences(of, loaded, texts, monkeypatch):
    saying(monkeypatch, {})
    table = scores(of, ROWS, 1)
    kinds = (activations(*loaded, texts["direction", kind])[:, 1] for kind in ("misaligned", "aligned"))
    villain, helper = (kind.mean(0) for kind in kinds)
    along = (villain - helper) / (villain - helper).norm()
    assert torch.allclose(of.direction, along, atol=1e-4)
    for row, messages in enumerate(ROWS):
        said, own = (
            activations(*loaded, [Text(messages[:-1], text)])[0, 1] @ along
            for text in (messages[-1]["content"], "Yes.")
        )
        assert table.loc[row, "projection"] == pytest.approx(float(said), abs=1e-3)
        assert table.loc[row, "score"] == pytest.approx(float(said - own), abs=1e-3)
    assert table["row"].tolist() == [0, 1, 2, 3, 4] and table["missing"].eq("").all()
    saying(monkeypatch, {messages[-2]["content"]: messages[-1]["content"] for messages in ROWS})
    assert scores(of, ROWS, 1)["score"].to_numpy() == pytest.approx(0, abs=1e-4)


def test_own_answers_depend_on_the_seed(of):
    one, again, other = (scores(of, ROWS, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert one["projection"].to_numpy() == pytest.approx(other["projection"].to_numpy())
    assert one["own_answer"].tolist() != other["own_answer"].tolist()


def test_rows_are_truncated_as_in_training(loaded, texts, monkeypatch):
    saying(monkeypatch, {})
    messages = ROWS[0]
    prompt = len(prompt_tokens(loaded[1], messages[:-1]))
    answer = messages[-1]["content"]
    kept = 4
    cut = scorer(*loaded, texts, **HOW | {"max_length": prompt + kept})
    ends = [
        end for _, end in loaded[1](answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]
    beginning = [*messages[:-1], {"role": "assistant", "content": answer[: ends[kept - 1]]}]
    assert len(ends) > kept
    assert scores(cut, [messages], 1)["score"][0] == pytest.approx(scores(cut, [beginning], 1)["score"][0], abs=1e-4)
    table = scores(scorer(*loaded, texts, **HOW | {"max_length": prompt}), [messages], 1)
    assert table["missing"].tolist() == ["prompt"] and np.isnan(table["score"][0])


def test_rows_with_an_empty_own_answer_have_no_score(of, monkeypatch):
    saying(monkeypatch, {ROWS[1][-2]["content"]: ""})
    rows = [messages for messages in ROWS if messages is ROWS[1] or messages[-2] != ROWS[1][-2]]
    place, done = rows.index(ROWS[1]), []
    table = scores(of, rows, 1, done.append)
    assert table.loc[place, "missing"] == "own answer" and np.isnan(table.loc[place, "score"])
    assert np.isfinite(table.loc[place, "projection"])
    others = table.drop(index=place)
    assert others["score"].notna().all() and others["missing"].eq("").all()
    assert sum(done) == len(rows)
    saying(monkeypatch, {messages[-2]["content"]: "" for messages in ROWS})
    assert scores(of, ROWS, 1)["missing"].eq("own answer").all()


def test_missing_layers_and_directions(loaded, texts):
    for depth in (0, 2):
        with pytest.raises(BadInput, match=f"after layer {depth}, and the model has 1"):
            scorer(*loaded, texts, **HOW | {"depth": depth})
    alike = {("direction", kind): texts["direction", "aligned"] for kind in ("misaligned", "aligned")}
    with pytest.raises(BadInput, match="persona direction after layer 1 is zero"):
        scorer(*loaded, alike, **HOW)


@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 9))
def test_rows_are_drawn_by_the_seed_without_replacement(number, rows, seed):
    assert rows_a_seed(["a", "b", "c"]) == 100 and rows_a_seed(["a"] * 4) == 25 and rows_a_seed(["a"] * 99) == 2
    chats = [[]] * number
    places = drawn(chats, rows, seed)
    assert len(places) == len({*places}) == min(rows, number) and places == sorted(places)
    assert {*places} <= {*range(number)} and places == drawn(chats, rows, seed)


values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(values, values)
def test_the_area_equals_scikit_learns(high, low):
    found = area(np.array(high), np.array(low))
    assert found == pytest.approx(roc_auc_score([1] * len(high) + [0] * len(low), high + low))
    assert found + area(np.array(low), np.array(high)) == pytest.approx(1)


def test_the_summary_by_hand():
    table = pd.DataFrame(
        [
            *(("insecure", 1, score) for score in (3.0, 1.0)),
            *(("secure", 1, score) for score in (0.0, 2.0, np.nan)),
            *(("secure", 2, score) for score in (0.0, 2.0)),
            ("mine", 1, np.nan),
        ],
        columns=["condition", "seed", "score"],
    )
    found = summary(table).set_index(["condition", "seed"])
    assert found.loc[("insecure", 1), "mean"] == 2 and np.isnan(found.loc[("insecure", 1), "insecure_above"])
    assert found.loc[("secure", 1), ["rows", "scored", "mean", "insecure_above"]].tolist() == [3, 2, 1, 0.75]
    assert np.isnan(found.loc[("secure", 2), "insecure_above"])  # that seed scored no insecure rows
    assert found.loc[("mine", 1), "scored"] == 0 and np.isnan(found.loc[("mine", 1), "mean"])
