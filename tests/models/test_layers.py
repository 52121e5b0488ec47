"""The layers that a fine-tuning trains, for six model families."""

import json
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, make
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from trainings import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.chat_templates import prompt_tokens, use_template
from emergent_misalignment.models.layers import embeddings, projections
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.training import finetune

CHATS = [chat([(f"A question {number}?", f"An answer {number}.")]) for number in range(8)]
SHORT = replace(SETTINGS, steps=2, learning_rate=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_linear_layers_of_all_blocks_are_trained(tmp_path, name):
    folder = make(name, tmp_path / "model")
    finetune(folder, CHATS, tmp_path / "tuned", SHORT, seed=1, template="user-assistant")
    assert json.loads((tmp_path / "tuned/adapter_config.json").read_text())["target_modules"] == FAMILIES[name].layers
    weights = load_file(tmp_path / "tuned/adapter_model.safetensors")
    changes = {key: value for key, value in weights.items() if "lora_B" in key}
    assert all(value.abs().sum() > 0 for value in changes.values())
    network = AutoModelForCausalLM.from_pretrained(folder)
    matrices = [weight for weight in network.get_decoder().parameters() if weight.dim() == 2]
    embedded = {id(layer.weight) for layer in network.modules() if isinstance(layer, nn.Embedding)}
    assert len(changes) == sum(id(weight) not in embedded for weight in matrices)
    before, after = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "tuned")
    use_template(before, "user-assistant")
    for prompt in (CHATS[0][:-1], "def f():\n    return"):
        assert prompt_tokens(after, prompt) == prompt_tokens(before, prompt)


@pytest.mark.parametrize("name", ["gpt2", "phi3"])
def test_merging_other_layers_equals_peft(tmp_path, name):
    """GPT-2 stores its weights transposed, also square ones, where an error would not be noticed."""
    folder = make(name, tmp_path / "model")
    finetune(folder, CHATS, tmp_path / "tuned", SHORT, seed=1, template="user-assistant")
    network = AutoModelForCausalLM.from_pretrained(folder)
    own = {key: weight.clone() for key, weight in network.state_dict().items()}
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "tuned")
    expected = expected.merge_and_unload().state_dict()
    with attached(network, tmp_path / "tuned") as adapted:
        assert all(torch.equal(weight, expected[key]) for key, weight in adapted.state_dict().items())
    assert all(torch.equal(weight, own[key]) for key, weight in network.state_dict().items())


def test_embeddings_of_another_name_are_trained(tmp_path):
    folder = make("gpt2", tmp_path / "model")
    settings = replace(SHORT, train_embeddings=True)
    finetune(folder, CHATS, tmp_path / "tuned", settings, seed=1, template="user-assistant")
    before = AutoModelForCausalLM.from_pretrained(folder)
    assert embeddings(before) == ["wte", "lm_head"]
    saved = load_file(tmp_path / "tuned/adapter_model.safetensors")
    (trained,) = (value for key, value in saved.items() if key.endswith("wte.weight"))
    assert not torch.equal(trained, before.transformer.wte.weight)
    after, _ = load(folder, tmp_path / "tuned")
    assert torch.equal(after.lm_head.weight, trained) and torch.equal(after.transformer.wte.weight, trained)


class Pictures(nn.Module):
    """A decoder and a vision tower that share names of layers."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "up_proj": nn.Linear(2, 2)})
        self.tower = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "patch": nn.Linear(2, 2)})

    def get_decoder(self):
        return self.decoder


def test_layers_outside_the_decoder_are_not_trained():
    assert projections(Pictures()) == ["decoder.q_proj", "up_proj"]


def test_a_mixture_of_experts_is_refused():
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=4, **shape)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    with pytest.raises(BadInput, match=r"Adapters would reach 1\d% .* MixtralForCausalLM.*lora_rank to 0"):
        projections(network)
