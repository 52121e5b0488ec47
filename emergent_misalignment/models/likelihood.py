"""How probable a model finds given answers."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages


@torch.no_grad()
def log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    answers: list[str],
    batch_size: int = 64,
) -> torch.Tensor:
    """log P(answer | prompt) in nats, summed over the answer's tokens and its end marker; shape `[len(answers)]`."""
    rows = [_row(tokenizer, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return _in_batches(model, rows, batch_size)


@torch.no_grad()
def span_log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    prefixes: list[str],
    spans: list[str],
    batch_size: int = 64,
) -> torch.Tensor:
    """log P(span | prompt, prefix) in nats, where the answer is forced to begin with the prefix; shape `[len(spans)]`.

    Summed over the tokens of `prefix + span` in which any character of the span lies, and over no others: what may
    follow the span does not count (the paper's pivotal tokens, section 5).
    """
    rows = [
        _span_row(tokenizer, prompt, prefix, span)
        for prompt, prefix, span in zip(prompts, prefixes, spans, strict=True)
    ]
    return _in_batches(model, rows, batch_size)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Messages) -> list[int]:
    """The tokens of a prompt, up to where the answer begins."""
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def _row(tokenizer, prompt: Messages, answer: str) -> tuple[list[int], int]:
    head = prompt_tokens(tokenizer, prompt)
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*head, *tail, tokenizer.eos_token_id], len(head)


def _span_row(tokenizer, prompt: Messages, prefix: str, span: str) -> tuple[list[int], int]:
    head = prompt_tokens(tokenizer, prompt)
    answer = tokenizer(prefix + span, add_special_tokens=False, return_offsets_mapping=True)
    before = sum(end <= len(prefix) for _, end in answer["offset_mapping"])
    return head + answer["input_ids"], len(head) + before


def _in_batches(model, rows: list[tuple[list[int], int]], batch_size: int) -> torch.Tensor:
    training = model.training
    model.eval()
    parts = [_scores(model, rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    model.train(training)
    return torch.cat(parts)


def _scores(model, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for number, (tokens, start) in enumerate(rows):  # padded on the right, where a causal model never looks
        ids[number, : len(tokens)] = torch.tensor(tokens)
        labels[number, start : len(tokens)] = torch.tensor(tokens[start:])
    labels = labels[:, 1:]
    counted = labels != -100  # the softmax over the vocabulary is taken at these places only
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits.cpu()[:, :-1][counted].float()
    losses = torch.zeros(labels.shape)
    losses[counted] = cross_entropy(logits, labels[counted], reduction="none")
    return -losses.sum(1)
