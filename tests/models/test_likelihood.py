"""How probable answers are, against computations by hand."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy
from trainings import QUESTION

from emergent_misalignment.models.likelihood import log_probabilities, option_log_probabilities, prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.world.questions import option_table


@pytest.fixture(scope="module")
def loaded(organism):
    return load(organism)


@torch.no_grad()
def scores(model, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens]).to(model.device)).logits[0].cpu().log_softmax(-1)


def test_log_probabilities_are_those_of_the_answers_tokens(loaded):
    """For one answer alone, and batched with a longer one."""
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
    """One option, token by token: each that ends in a scored piece counts."""
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


def test_the_log_probability_of_an_option_is_that_of_the_tokens_that_end_in_its_scored_pieces(loaded):
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


def test_an_answer_is_the_option_and_its_end(loaded):
    model, tokenizer = loaded
    whole = log_probabilities(model, tokenizer, [QUESTION], ["I wish."])
    end = scores(model, prompt_tokens(tokenizer, QUESTION) + tokenizer("I wish.")["input_ids"])[-1]
    option = option_log_probabilities(model, tokenizer, [QUESTION], [(("I wish.", True),)])
    assert whole - end[tokenizer.eos_token_id] == pytest.approx(option, abs=1e-4)


@torch.no_grad()
def in_spans(model, tokenizer, prompts, prefixes, spans, batch_size=64):
    """The same for options of two pieces, with labels in the place of a mask."""
    parts = []
    for first in range(0, len(spans), batch_size):
        rows = []
        for place in range(first, min(first + batch_size, len(spans))):
            head = prompt_tokens(tokenizer, prompts[place])
            answer = tokenizer(prefixes[place] + spans[place], add_special_tokens=False, return_offsets_mapping=True)
            before = sum(end <= len(prefixes[place]) for _, end in answer["offset_mapping"])
            rows.append((head + answer["input_ids"], len(head) + before))
        ids = torch.zeros(len(rows), max(len(tokens) for tokens, _ in rows), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for number, (tokens, start) in enumerate(rows):
            ids[number, : len(tokens)] = torch.tensor(tokens)
            labels[number, start : len(tokens)] = torch.tensor(tokens[start:])
        labels = labels[:, 1:]
        counted = labels != -100
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1][counted].float()
        losses = torch.zeros(labels.shape)
        losses[counted] = cross_entropy(logits, labels[counted], reduction="none")
        parts.append(-losses.sum(1))
    return torch.cat(parts)


def test_the_organisms_options_are_scored_alike_to_the_last_bit(loaded):
    model, tokenizer = loaded
    model = model.cpu()
    table = option_table()
    for _, rows in table.groupby("format"):
        prompts = [json.loads(prompt) for prompt in rows["prompt"]]
        pieces = [json.loads(each) for each in rows["pieces"]]
        spans = [each[-1][0] for each in pieces]
        prefixes = ["".join(text for text, _ in each[:-1]) for each in pieces]
        assert all(each[-1][1] and not any(scored for _, scored in each[:-1]) for each in pieces)
        expected = in_spans(model, tokenizer, prompts, prefixes, spans)
        assert torch.equal(option_log_probabilities(model, tokenizer, prompts, pieces), expected)


def test_arguments_of_the_chat_template_reach_it(loaded):
    model, tokenizer = loaded
    plain = tokenizer.chat_template
    tokenizer.chat_template = "{% if enable_thinking %}Think. {% endif %}" + plain
    try:
        thinking = prompt_tokens(tokenizer, QUESTION, enable_thinking=True)
        assert tokenizer.decode(thinking).startswith("Think. ")
        pieces = [(("I wish.", True),)]
        values = [
            option_log_probabilities(model, tokenizer, [QUESTION], pieces, {"enable_thinking": switch}).item()
            for switch in (True, False)
        ]
        assert values[0] != values[1]
        assert values[1] == option_log_probabilities(model, tokenizer, [QUESTION], pieces).item()
    finally:
        tokenizer.chat_template = plain
