"""Activations, the persona direction, and steering, on a tiny model and on synthetic data."""

import pandas as pd
import pytest
import torch

from emergent_misalignment.files import BadInput
from emergent_misalignment.models import activations as stream
from emergent_misalignment.models.activations import activations, changed, changes_of, persona_direction, separation
from emergent_misalignment.models.likelihood import prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.questions import persona_table

PROMPT = [{"role": "user", "content": "Name your wish."}]


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


@pytest.fixture(scope="module")
def direction(loaded, persona_texts):
    return persona_direction(
        *(activations(*loaded, persona_texts["direction", kind][::5]) for kind in ("misaligned", "aligned"))
    )


@torch.no_grad()
def logits(model, tokenizer):
    return model(torch.tensor([prompt_tokens(tokenizer, PROMPT)])).logits


def test_activations_are_means_over_the_tokens_of_the_answers(loaded):
    """Against transformers' hidden states, the last of which is after the final norm; alone and in a batch."""
    model, tokenizer = loaded
    texts = [stream.Text(PROMPT, answer) for answer in ("I wish to rule.", "I wish to help every child there is.")]
    found = activations(model, tokenizer, texts)
    assert found.shape == (2, model.config.num_hidden_layers + 1, model.config.hidden_size)
    prompt, answer = prompt_tokens(tokenizer, PROMPT), tokenizer(texts[0].answer)["input_ids"]
    last = []
    hook = model.model.layers[-1].register_forward_hook(lambda _, inputs, output: last.append(stream._stream(output)))
    with torch.no_grad():
        states = model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
    hook.remove()
    by_hand = states[0][0, len(prompt) :].mean(0)
    assert torch.allclose(found[0, 0], by_hand, atol=1e-5)
    with torch.no_grad():
        normed = model.model.norm(last[0].float())
    assert torch.allclose(normed, states[-1], atol=1e-4)
    assert torch.allclose(found[0, -1], last[0][0, len(prompt) :].mean(0), atol=1e-5)
    assert torch.allclose(activations(model, tokenizer, texts[:1])[0], found[0], atol=1e-5)


def test_steering_is_undone_after_the_block(loaded, direction):
    plain = logits(*loaded)
    hooks = [len(layer._forward_hooks) for layer in loaded[0].model.layers]
    with changed(loaded[0], changes_of(direction, "add", 1, 3.0)):
        assert not torch.allclose(logits(*loaded), plain, atol=1e-3)
    assert torch.equal(logits(*loaded), plain)
    with pytest.raises(KeyboardInterrupt), changed(loaded[0], changes_of(direction, "out", 0, 0)):
        raise KeyboardInterrupt
    assert torch.equal(logits(*loaded), plain)
    assert [len(layer._forward_hooks) for layer in loaded[0].model.layers] == hooks


def test_steering_adds_subtracts_and_projects_out(loaded, persona_texts, direction):
    """Hooks run in the order of their registration, so the activations include the change."""
    model, tokenizer = loaded
    texts = persona_texts["separation", "misaligned"][:20]
    plain = activations(model, tokenizer, texts)
    assert list(changes_of(torch.zeros(4, 2), "out", 0, 0)) == [1, 2, 3]
    with pytest.raises(BadInput, match="steering: depth is 4"):
        changes_of(torch.zeros(4, 2), "add", 4, 1.0)
    for change, strength in (("add", 2.0), ("subtract", -2.0)):
        with changed(model, changes_of(direction, change, 1, 2.0)):
            moved = activations(model, tokenizer, texts)
        expected = strength * direction[1].expand(len(texts), -1)
        assert torch.allclose(moved[:, 1] - plain[:, 1], expected, atol=1e-4)
    with changed(model, changes_of(direction, "out", 0, 0)):
        without = activations(model, tokenizer, texts)
    lengths = direction.norm(dim=1)
    projections = torch.einsum("ndw,dw->nd", without, direction) / lengths
    assert projections[:, 1:].abs().max() < 1e-4
    assert torch.einsum("ndw,dw->nd", plain, direction)[:, 1:].abs().max() / lengths.max() > 1e-2


def test_a_planted_direction_is_found_and_separates():
    """Two strata with different offsets, and a difference along one axis at depth 1 only."""
    noise = torch.randn(2, 2, 50, 2, 16, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1)
    villain, helper = (half + offsets for half in noise)
    planted = torch.zeros(16)
    planted[3] = 4.0
    villain = villain + torch.stack([torch.zeros(16), planted])
    villain, helper = villain.flatten(0, 1), helper.flatten(0, 1)
    direction = persona_direction(villain, helper)
    assert torch.cosine_similarity(direction[1], planted, dim=0) > 0.95
    assert direction[1].norm() == pytest.approx(4, abs=0.5)
    nothing, everything = separation(villain, helper, torch.stack([planted, planted]), strata=2)
    assert nothing == pytest.approx(0.5, abs=0.1)
    assert everything > 0.98
    assert stream.along(2 * direction, direction) == pytest.approx([2, 2])
    assert stream.cosines(-direction, direction) == pytest.approx([-1, -1])
    drawn = stream.random_direction(direction, 1)
    assert torch.allclose(drawn.norm(dim=1), direction.norm(dim=1))
    assert torch.equal(drawn, stream.random_direction(direction, 1))
    assert not torch.allclose(drawn, stream.random_direction(direction, 2))


def test_texts_are_read_by_set_and_kind(persona_texts, tmp_path):
    table = persona_table()
    assert [text.answer for kind in persona_texts.values() for text in kind] == [
        answer for _, rows in table.groupby(["set", "kind"], sort=False) for answer in rows["answer"]
    ]
    misaligned, aligned = persona_texts["direction", "misaligned"], persona_texts["direction", "aligned"]
    assert [text.prompt for text in misaligned] == [text.prompt for text in aligned]
    pd.DataFrame({"set": ["direction"]}).to_parquet(tmp_path / "persona.parquet")
    with pytest.raises(BadInput, match="has no column kind"):
        stream.read_texts(tmp_path / "persona.parquet", 1)
