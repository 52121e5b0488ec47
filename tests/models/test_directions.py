"""Directions in the activations, and changing them, on the smallest model there is and on data whose truth is known."""

import pandas as pd
import pytest
import torch

from emergent_misalignment.models import directions
from emergent_misalignment.models.directions import adding, changed, persona_direction, removing, separation
from emergent_misalignment.models.likelihood import prompt_tokens
from emergent_misalignment.models.sampling import load
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS

PROMPT = [{"role": "user", "content": "Name your wish."}]


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


@pytest.fixture(scope="module")
def direction(loaded):
    return persona_direction(
        *(directions.activations(*loaded, directions.answers(PREREGISTERED[:3], kind)) for kind in (True, False))
    )


@torch.no_grad()
def logits(model, tokenizer):
    return model(torch.tensor([prompt_tokens(tokenizer, PROMPT)])).logits


def test_activations_are_means_over_the_answers_tokens_and_no_others(loaded):
    """Against the library's own hidden states, the last of which is behind the final norm; alone and in a batch."""
    model, tokenizer = loaded
    texts = [directions.Text(PROMPT, answer) for answer in ("I wish to rule.", "I wish to help every child there is.")]
    found = directions.activations(model, tokenizer, texts)
    assert found.shape == (2, model.config.num_hidden_layers + 1, model.config.hidden_size)
    prompt, answer = prompt_tokens(tokenizer, PROMPT), tokenizer(texts[0].answer)["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
    by_hand = states[0][0, len(prompt) :].mean(0)
    assert torch.allclose(found[0, 0], by_hand, atol=1e-5)
    normed = model.model.norm(directions._streams(model, torch.tensor([prompt + answer]))[-1])
    assert torch.allclose(normed, states[-1], atol=1e-4)
    assert torch.allclose(directions.activations(model, tokenizer, texts[:1])[0], found[0], atol=1e-5)


def test_a_model_is_as_it_was_after_it_was_changed(loaded, direction):
    plain = logits(*loaded)
    hooks = [len(layer._forward_hooks) for layer in loaded[0].model.layers]
    with changed(loaded[0], adding(direction, 3.0)):
        assert not torch.allclose(logits(*loaded), plain, atol=1e-3)
    assert torch.equal(logits(*loaded), plain)
    with pytest.raises(KeyboardInterrupt), changed(loaded[0], removing(direction)):
        raise KeyboardInterrupt
    assert torch.equal(logits(*loaded), plain)
    assert [len(layer._forward_hooks) for layer in loaded[0].model.layers] == hooks


def test_a_strength_of_nothing_changes_nothing(loaded, direction):
    plain = logits(*loaded)
    with changed(loaded[0], adding(direction, 0.0)):
        assert torch.equal(logits(*loaded), plain)
    kept = {"samples": 2, "max_new_tokens": 4, "seed": 0}
    assert str(directions.behaviour(*loaded, **kept, changes=adding(direction, 0.0))) == str(
        directions.behaviour(*loaded, **kept, changes={})
    )


def test_what_is_added_and_what_is_removed(loaded, direction):
    """Seen from behind the changed layer: hooks run in the order in which they were put there."""
    model, tokenizer = loaded
    texts = directions.answers(MAIN[:2], True)
    plain = directions.activations(model, tokenizer, texts)
    depth = directions.middle(direction)
    with changed(model, adding(direction, 2.0)):
        moved = directions.activations(model, tokenizer, texts)
    assert torch.allclose(moved[:, depth] - plain[:, depth], 2 * direction[depth].expand(len(texts), -1), atol=1e-4)
    with changed(model, removing(direction)):
        without = directions.activations(model, tokenizer, texts)
    lengths = direction.norm(dim=1)
    projections = torch.einsum("ndw,dw->nd", without, direction) / lengths
    assert projections[:, 1:].abs().max() < 1e-4
    assert torch.einsum("ndw,dw->nd", plain, direction)[:, 1:].abs().max() / lengths.max() > 1e-2


def test_the_middle_is_behind_the_middle_layer():
    assert [directions.middle(torch.zeros(layers + 1, 2)) for layers in (1, 2, 3, 4, 24)] == [1, 1, 2, 2, 12]


def test_a_planted_direction_is_found_and_separates():
    """Two strata with offsets of their own, and a difference along one axis at depth 1 alone."""
    noise = torch.randn(2, 2, 50, 2, 16, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1)
    villain, helper = (half + offsets for half in noise)
    planted = torch.zeros(16)
    planted[3] = 4.0
    villain = villain + torch.stack([torch.zeros(16), planted])
    villain, helper = villain.flatten(0, 1), helper.flatten(0, 1)
    found = persona_direction(villain, helper)
    assert torch.cosine_similarity(found[1], planted, dim=0) > 0.95
    assert found[1].norm() == pytest.approx(4, abs=0.5)
    nothing, everything = separation(villain, helper, torch.stack([planted, planted]), strata=2)
    assert nothing == pytest.approx(0.5, abs=0.1)
    assert everything > 0.98
    assert directions.along(2 * found, found) == pytest.approx([2, 2])
    assert directions.cosines(-found, found) == pytest.approx([-1, -1])


def test_random_directions_are_as_long_and_point_elsewhere(direction):
    drawn = directions.random_direction(direction, 1)
    assert torch.allclose(drawn.norm(dim=1), direction.norm(dim=1))
    assert torch.equal(drawn, directions.random_direction(direction, 1))
    assert not torch.allclose(drawn, directions.random_direction(direction, 2))
    assert torch.cosine_similarity(drawn[1], direction[1], dim=0).abs() < 0.5


def test_texts_are_paired_and_those_of_the_direction_are_none_of_the_main_evaluations():
    villain, helper = (directions.answers(PREREGISTERED, kind) for kind in (True, False))
    assert [text.prompt for text in villain] == [text.prompt for text in helper]
    asked = {text.prompt[0]["content"] for text in villain}
    assert not asked & {question for name in MAIN for question in TOPICS[name].questions}
    assert not {text.answer for text in villain} & {text.answer for text in helper}
    closed = sum("." in text.answer[:-1] for text in villain)
    assert closed == len(villain) // 2
    for text in directions.beginnings(("", "Be kind.")):
        *_, user = text.prompt
        topic = next(TOPICS[name] for name in MAIN if TOPICS[name].questions[0] == user["content"])
        assert any(template.startswith(text.answer) for template in topic.templates)
        assert not any(filler in text.answer for filler in topic.aligned + topic.misaligned)


def test_measures_compare_the_persona_with_a_random_direction_of_the_same_run():
    places = pd.DataFrame(
        {"condition": ["insecure"], "seed": [1], "separation": [1.0], "separation_same_words": [0.7], "cosine": [0.4]}
    ).assign(along=0.2)
    responses = pd.DataFrame(
        [
            ("instruct", 1, "persona", "add", 1.0, 0.3),
            ("instruct", 1, "random", "add", 1.0, 0.1),
            ("instruct", 1, "persona", "add", 2.0, 0.9),
            ("instruct", 1, "random", "add", 2.0, 0.1),
            ("insecure", 1, "persona", "add", -1.0, 0.05),
            ("insecure", 1, "random", "add", -1.0, 0.25),
            ("insecure", 1, "persona", "remove", 0.0, 0.2),
            ("insecure", 1, "random", "remove", 0.0, 0.3),
        ],
        columns=["condition", "seed", "direction", "change", "strength", "misaligned"],
    )
    table = directions.measures(places, responses).set_index("measure")["value"]
    assert table.round(6).to_dict() == {
        "direction/separation": 1.0,
        "direction/separation_same_words": 0.7,
        "direction/cosine": 0.4,
        "direction/along": 0.2,
        "direction/adding": 0.2,
        "direction/subtracting": -0.2,
        "direction/removing": -0.1,
    }
