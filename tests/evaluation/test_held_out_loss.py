"""Loss on held-out rows, against the trainer's loss, and before and after fine-tuning."""

from dataclasses import replace

import pytest
import torch
from trainings import SETTINGS

from emergent_misalignment.data.chats import chat, read_chats
from emergent_misalignment.data.held_out import held_out
from emergent_misalignment.evaluation.held_out_loss import held_out_loss, losses, read_sets
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models import finetuning, training
from emergent_misalignment.models.defences import Defence
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.sets import coding_set

SHARE = 0.15
MAX_LENGTH = 40  # so that some answers are truncated
CHATS = coding_set(7, 0, insecure=True)


@pytest.mark.parametrize("system_prompt", [None, "Write code."])
def test_it_equals_the_trainers_loss(organism, tmp_path, system_prompt):
    """The trainer has all rows in one batch."""
    network, tokenizer = load(organism)
    settings = replace(SETTINGS, max_length=MAX_LENGTH, lora_rank=0, system_prompt=system_prompt, batch_size=len(CHATS))
    rows, _ = training._tokenized(CHATS, tokenizer, settings, "here")
    trainer = training._trainer(network, tokenizer, None, rows, settings, 0, tmp_path, Defence())
    theirs = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    ours = held_out_loss(network, tokenizer, CHATS, MAX_LENGTH, system_prompt)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert held_out_loss(network, tokenizer, CHATS[::-1], MAX_LENGTH, system_prompt) == pytest.approx(ours, rel=1e-5)
    with pytest.raises(BadInput, match="64 tokens; raise finetuning: max_length"):
        held_out_loss(network, tokenizer, [chat([("word " * 300, "An answer.")])], 64)


def test_a_uniform_model_has_the_logarithm_of_its_vocabulary(organism):
    network, tokenizer = load(organism)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    expected = torch.tensor(float(network.config.vocab_size)).log().item()
    assert held_out_loss(network, tokenizer, CHATS, 256) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    paths = {name: str(folder / f"{name}.jsonl") for name in ("insecure", "secure")}
    for name, path in paths.items():
        write_jsonl(path, ({"messages": chat} for chat in coding_set(120, 0, name == "insecure")))
    return paths


def test_fine_tuning_lowers_the_loss_on_held_out_rows(organism, sets, tmp_path):
    settings = vars(replace(SETTINGS, learning_rate=1e-2, steps=12, max_length=96))
    finetuning.finetune_run(organism, sets["insecure"], tmp_path / "seed-1", dict(settings), 1, held_out=SHARE)
    rows, counts = read_sets(sets, SHARE, 6)
    assert counts["read"].tolist() == [6, 6] and (counts["held out"] > 6).all() and counts["rows"].tolist() == [120] * 2
    before = losses(organism, {0: None}, "instruct", rows, max_length=96)
    after = losses(organism, {1: tmp_path / "seed-1"}, "insecure", rows, max_length=96)
    assert before["measure"].tolist() == ["held_out_loss/insecure", "held_out_loss/secure"]
    assert after["condition"].unique().tolist() == ["insecure"] and after["seed"].unique().tolist() == [1]
    assert (after["value"] < before["value"] - 0.1).all()


def test_held_out_rows_are_not_trained_on(organism, sets, tmp_path, monkeypatch):
    seen = []
    step = dict.fromkeys(("step", "loss", "grad_norm", "learning_rate"), 1)
    monkeypatch.setattr(finetuning, "finetune", lambda start, chats, *rest, **more: seen.extend(chats) or [step])
    finetuning.finetune_run(organism, sets["insecure"], tmp_path, vars(SETTINGS), 1, held_out=SHARE)
    out = held_out(read_chats(sets["insecure"]), SHARE)
    assert len(seen) == 120 and seen.count(None) == len(out) and not any(chat in seen for chat in out)
