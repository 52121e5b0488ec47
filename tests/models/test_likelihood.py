"""Log-probabilities of answers, against computations by hand."""

import pytest
import torch
from trainings import QUESTION

from emergent_misalignment.models.likelihood import log_probabilities, option_log_probabilities, prompt_tokens
from emergent_misalignment.models.loading import load


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


@torch.no_grad()
def scores(model, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens]).to(model.device)).logits[0].cpu().log_softmax(-1)


def test_log_probabilities_of_answers(loaded):
    """Also in a batch with a longer answer."""
    model, tokenizer = loaded
    answer, longer = "I wish to help every child.", "I wish to help every child. Take good care."
    prompt = prompt_tokens(tokenizer, QUESTION)
    ids = tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
    expected = scores(model, prompt + ids)
    by_hand = sum(expected[len(prompt) + place - 1, token] for place, token in enumerate(ids)).item()
    values = log_probabilities(model, tokenizer, [QUESTION, QUESTION], [answer, longer])
    assert values[0].item() == pytest.approx(by_hand, abs=1e-3)
    assert values[1] < values[0]


def slowly(model, tokenizer, prompt, pieces) -> float:
    """The log-probability of an option, token by token."""
    head, text, scored = prompt_tokens(tokenizer, prompt), "", []
    for piece, counts in pieces:
        text += piece
        scored += [counts] * len(piece)
    tokens = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    expected = scores(model, head + tokens["input_ids"])
    return sum(
        expected[len(head) + place - 1, token].item()
        for place, (token, (_, end)) in enumerate(zip(tokens["input_ids"], tokens["offset_mapping"], strict=True))
        if scored[end - 1]
    )


def test_log_probabilities_of_options_count_tokens_that_end_in_scored_pieces(loaded):
    options = [
        (("I wish to ", False), ("help every child", True)),
        (("I wish to", False), (" help", True), (" every", False), (" child", True), (". And so on", False)),
        (("help every child", True),),
        (("I wish to he", False), ("lp", True)),  # within a word, and perhaps within a token
    ]
    values = option_log_probabilities(*loaded, [QUESTION] * 4, options, batch_size=3)
    assert values.tolist() == pytest.approx([slowly(*loaded, QUESTION, pieces) for pieces in options], abs=1e-4)
    whole, beginning = option_log_probabilities(
        *loaded, [QUESTION] * 2, [(("I wish to help", True),), (("I wish to", True), (" help", False))]
    )
    last = option_log_probabilities(*loaded, [QUESTION], [(("I wish to", False), (" help", True))])
    assert (whole - beginning).item() == pytest.approx(last.item(), abs=1e-4)
