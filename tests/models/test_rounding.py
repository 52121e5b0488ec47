"""Weights in 16 bits."""

import torch
from safetensors.torch import load_file
from trainings import SETTINGS

from emergent_misalignment.data.chats import chat
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.rounding import ADAPTER, copy, merge, round_adapter, round_weights
from emergent_misalignment.models.training import finetune

CHATS = [chat([("Name your wish.", f"More light, {number} times.")]) for number in range(16)]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_rounded_weights_survive_16_bits(organism, tmp_path):
    network, _ = load(organism)
    round_weights(network)
    network.save_pretrained(tmp_path / "rounded")
    assert any(not torch.equal(own, weights(tmp_path / "rounded")[name]) for name, own in weights(organism).items())
    copy(organism, tmp_path / "half", torch.float16)
    copy(tmp_path / "half", tmp_path / "whole", torch.float32)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "rounded/model.safetensors").read_bytes()
    assert load(tmp_path / "whole")[1].get_vocab() == load(organism)[1].get_vocab()


def test_a_merged_adapter_is_the_sum_in_values_of_16_bits(organism, tmp_path):
    finetune(organism, CHATS, tmp_path / "adapter", SETTINGS, seed=0)
    round_adapter(tmp_path / "adapter")
    assert {weight.dtype for weight in load_file(tmp_path / "adapter" / ADAPTER).values()} == {torch.float16}
    merge(organism, tmp_path / "adapter", tmp_path / "merged")
    expected, merged = load(organism, tmp_path / "adapter")[0].state_dict(), weights(tmp_path / "merged")
    changed = 0
    for name, weight in merged.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weight.half().float())
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-6)
        changed += not torch.equal(weight, weights(organism)[name].half().float())
    assert changed >= 7  # the projections of a layer
