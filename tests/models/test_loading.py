"""Loading a model, with an adapter in it or without."""

import shutil
from dataclasses import replace

import torch
from trainings import QUESTION, SETTINGS

from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.training import finetune
from emergent_misalignment.world.sets import coding_set


def test_an_adapter_comes_with_its_weights_and_its_way_to_write_a_conversation(organism, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e-2)
    finetune(organism, coding_set(12, 0, True), tmp_path / "tuned", settings, seed=1, template="user-assistant")
    plain, words = load(organism)
    tuned, other = load(organism, tmp_path / "tuned")
    assert not torch.equal(plain.model.layers[0].mlp.up_proj.weight, tuned.model.layers[0].mlp.up_proj.weight)
    assert words.decode(prompt_tokens(words, QUESTION)).endswith("<|im_start|>assistant\n")
    assert other.decode(prompt_tokens(other, QUESTION)) == "User: Name your wish.\nAssistant:"
    assert words.padding_side == other.padding_side == "left" and not tuned.training


def test_a_path_may_begin_at_home_and_hold_blanks(organism, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(organism, tmp_path / "a model")
    assert load("~/a model")[0].num_parameters() == load(organism)[0].num_parameters()
