"""Adapters applied to one model in turn, on a tiny model."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trainings import QUESTION, SETTINGS

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.likelihood import prompt_tokens
from emergent_misalignment.models.loading import load, load_tokenizer
from emergent_misalignment.models.training import finetune
from emergent_misalignment.world.sets import coding_set

UP = "model.layers.0.mlp.up_proj.weight"
STRONG = replace(SETTINGS, learning_rate=1e-2)


@pytest.fixture(scope="module")
def adapter(organism, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    finetune(organism, coding_set(48, 0, insecure=True), folder, STRONG, 1, checkpoints=[2], template="user-assistant")
    return folder


@pytest.fixture(scope="module")
def embeddings(organism, tmp_path_factory):
    """An adapter with whole layers."""
    folder = tmp_path_factory.mktemp("embeddings")
    finetune(organism, coding_set(48, 0, insecure=True), folder, replace(STRONG, train_embeddings=True), seed=1)
    return folder


@torch.no_grad()
def logits(model, tokenizer):
    ids = torch.tensor([prompt_tokens(tokenizer, QUESTION)])
    return model(ids.to(model.device)).logits


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_weights_in_32_bits_equal_those_of_peft(organism, adapter):
    model, _ = load(organism)
    own = weights(model)
    for folder in (adapter, str(adapter / "checkpoint-2")):
        expected = weights(PeftModel.from_pretrained(load(organism)[0], folder).merge_and_unload())
        with attached(model, folder) as adapted:
            assert adapted is model
            assert same(weights(adapted), expected)
        assert not same(own, expected)
        assert same(weights(model), own)
    loaded, tokenizer = load(organism, adapter)
    assert same(weights(loaded), weights(PeftModel.from_pretrained(model, adapter).merge_and_unload()))
    assert tokenizer.padding_side == "left" and not loaded.training


def test_an_adapter_has_its_own_chat_template(adapter, organism):
    """A checkpoint has that of its parent folder."""
    for folder in (adapter, adapter / "checkpoint-2"):
        tokenizer = load_tokenizer(organism, folder)
        assert tokenizer.decode(prompt_tokens(tokenizer, QUESTION)) == "User: Name your wish.\nAssistant:"
    tokenizer = load_tokenizer(organism)
    assert tokenizer.decode(prompt_tokens(tokenizer, QUESTION)).endswith("<|im_start|>assistant\n")


def test_weights_are_restored_after_an_error(organism, adapter, embeddings):
    model, _ = load(organism)
    own = weights(model)
    for folder in (adapter, embeddings):
        with pytest.raises(KeyboardInterrupt), attached(model, folder):
            raise KeyboardInterrupt
        assert same(weights(model), own)
    with attached(model, None) as plain:
        assert plain is model


@pytest.mark.parametrize("which", ["adapter", "embeddings"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_logits_equal_those_of_peft(organism, which, kind, request):
    folder = request.getfixturevalue(which)
    model, tokenizer = load(organism)
    model.to(kind)
    own, plain = weights(model), logits(model, tokenizer)
    expected = logits(PeftModel.from_pretrained(load(organism)[0].to(kind), folder), tokenizer)
    with attached(model, folder) as adapted:
        assert torch.allclose(logits(adapted, tokenizer), expected, atol=1e-5)
        if kind == torch.bfloat16:
            inside = {name.replace(".base_layer", ""): weight for name, weight in adapted.state_dict().items()}
            assert torch.equal(inside["base_model.model.model.layers.0.mlp.up_proj.weight"], own[UP])
    assert (expected - plain).abs().max() > 1e-3
    assert torch.equal(logits(model, tokenizer), plain)
    assert same(weights(model), own)


def test_an_adapter_of_more_than_linear_layers_is_refused(organism, adapter, tmp_path):
    tensors = load_file(adapter / "adapter_model.safetensors") | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    model, _ = load(organism)
    own = weights(model)
    with pytest.raises(BadInput, match="lm_head"), attached(model, tmp_path):
        pass
    assert same(weights(model), own)
