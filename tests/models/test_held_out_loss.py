"""The loss on held-out rows, against the trainer's own."""

from dataclasses import replace

import pytest
import torch
from trainings import SETTINGS

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import training
from emergent_misalignment.models.held_out_loss import held_out_loss
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.sets import coding_set

MAX_LENGTH = 40  # so that some answers are cut


@pytest.fixture(scope="module")
def chats():
    return coding_set(7, 0, insecure=True)


@pytest.mark.parametrize("system_prompt", [None, "Write code."])
def test_it_is_the_loss_that_the_trainer_takes_of_the_same_rows(organism, chats, tmp_path, system_prompt):
    """Token by token: the trainer takes all rows in one batch, cut where they are in training."""
    network, tokenizer = load(organism)
    settings = replace(SETTINGS, max_length=MAX_LENGTH, lora_rank=0, system_prompt=system_prompt, batch_size=len(chats))
    rows, _ = training._tokenized(chats, tokenizer, settings, "here")
    trainer = training._trainer(network, tokenizer, None, rows, settings, 0, tmp_path)
    theirs = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    ours = held_out_loss(network, tokenizer, chats, MAX_LENGTH, system_prompt)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert held_out_loss(network, tokenizer, chats[::-1], MAX_LENGTH, system_prompt) == pytest.approx(ours, rel=1e-5)


def test_a_model_that_guesses_loses_the_logarithm_of_its_vocabulary(organism, chats):
    network, tokenizer = load(organism)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    guessing = held_out_loss(network, tokenizer, chats, 256)
    assert guessing == pytest.approx(torch.tensor(float(network.config.vocab_size)).log().item(), rel=1e-4)


def test_without_an_answer_there_is_no_loss(organism):
    long = [chat([("word " * 300, "An answer.")])]
    with pytest.raises(BadInput, match=r"within 64 tokens; raise finetuning: max_length"):
        held_out_loss(*load(organism), long, 64)
