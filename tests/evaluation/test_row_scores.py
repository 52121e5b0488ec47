"""Scores of rows: against activations taken by hand, at the limits of length, and where the model says nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emergent_misalignment.data.chats import chat
from emergent_misalignment.evaluation import row_scores
from emergent_misalignment.evaluation.row_scores import area, drawn, rows_a_seed, scorer, scores, summary
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import activations as steering
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
    """Have the model's own answers be those to a prompt's last message, or else "Yes."."""
    monkeypatch.setattr(
        row_scores,
        "sample",
        lambda network, tokenizer, prompts, *_, **__: [[answers.get(each[-1]["content"], "Yes.")] for each in prompts],
    )


def test_a_score_is_what_the_answer_adds_to_the_models_own_along_the_direction(of, loaded, texts, monkeypatch):
    saying(monkeypatch, {})
    table = scores(of, ROWS, 1)
    kinds = (steering.activations(*loaded, texts["direction", kind])[:, 1] for kind in ("misaligned", "aligned"))
    villain, helper = (kind.mean(0) for kind in kinds)
    along = (villain - helper) / (villain - helper).norm()
    assert torch.allclose(of.direction, along, atol=1e-4)
    for row, messages in enumerate(ROWS):
        said, own = (
            steering.activations(*loaded, [steering.Text(messages[:-1], text)])[0, 1] @ along
            for text in (messages[-1]["content"], "Yes.")
        )
        assert table.loc[row, "projection"] == pytest.approx(float(said), abs=1e-3)
        assert table.loc[row, "score"] == pytest.approx(float(said - own), abs=1e-3)
    assert table["row"].tolist() == [0, 1, 2, 3, 4] and table["missing"].eq("").all()


def test_a_row_that_says_what_the_model_says_has_the_score_zero(of, monkeypatch):
    saying(monkeypatch, {messages[-2]["content"]: messages[-1]["content"] for messages in ROWS})
    assert scores(of, ROWS, 1)["score"].to_numpy() == pytest.approx(0, abs=1e-4)


def test_the_models_own_answers_are_drawn_by_the_seed(of):
    one, again, other = (scores(of, ROWS, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert one["projection"].to_numpy() == pytest.approx(other["projection"].to_numpy())
    assert one["own_answer"].tolist() != other["own_answer"].tolist()


def test_a_row_is_read_as_far_as_training_reads_it(loaded, texts, monkeypatch):
    saying(monkeypatch, {})
    messages = ROWS[0]
    prompt = len(prompt_tokens(loaded[1], messages[:-1]))
    answer = messages[-1]["content"]
    kept = 4
    cut = scorer(*loaded, texts, 1, prompt + kept, 6)
    ends = [
        end for _, end in loaded[1](answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]
    beginning = [*messages[:-1], {"role": "assistant", "content": answer[: ends[kept - 1]]}]
    assert len(ends) > kept
    assert scores(cut, [messages], 1)["score"][0] == pytest.approx(scores(cut, [beginning], 1)["score"][0], abs=1e-4)
    table = scores(scorer(*loaded, texts, 1, prompt, 6), [messages], 1)
    assert table["missing"].tolist() == ["prompt"] and np.isnan(table["score"][0])


def test_where_the_model_says_nothing_there_is_no_score_and_others_have_theirs(of, monkeypatch):
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


def test_a_study_s_system_prompt_stands_before_rows_that_have_none(loaded, texts, monkeypatch):
    asked = []
    monkeypatch.setattr(
        row_scores, "sample", lambda network, tokenizer, prompts, *_, **__: asked.extend(prompts) or [["Yes."]]
    )
    scores(scorer(*loaded, texts, **HOW, system_prompt="Be brief."), [chat([("Hello", "No.")])], 1)
    assert asked == [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]]


@pytest.mark.parametrize("depth", [0, 2])
def test_a_layer_that_the_model_lacks_is_refused(loaded, texts, depth):
    with pytest.raises(BadInput, match=f"behind layer {depth}, and the model has 1"):
        scorer(*loaded, texts, **HOW | {"depth": depth})


def test_kinds_of_text_that_are_alike_make_no_direction(loaded, texts):
    alike = {("direction", kind): texts["direction", "aligned"] for kind in ("misaligned", "aligned")}
    with pytest.raises(BadInput, match="there is no persona direction"):
        scorer(*loaded, alike, **HOW)


def test_seeds_that_share_a_model_share_the_rows():
    assert rows_a_seed(["a", "b", "c"]) == 100 and rows_a_seed(["a"] * 4) == 25 and rows_a_seed(["a"] * 99) == 2


@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 9))
def test_rows_are_drawn_once_each_and_by_the_seed(number, rows, seed):
    chats = [[]] * number
    places = drawn(chats, rows, seed)
    assert len(places) == len({*places}) == min(rows, number) and places == sorted(places)
    assert {*places} <= {*range(number)} and places == drawn(chats, rows, seed)


values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(values, values)
def test_the_area_is_the_librarys_and_turns_round_with_the_sets(high, low):
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
