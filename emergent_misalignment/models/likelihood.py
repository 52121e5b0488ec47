"""Log-probabilities of given answers."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.models.chat_templates import prompt_tokens

Pieces = tuple[tuple[str, bool], ...]  # an answer as consecutive texts, and which of them are scored
Row = tuple[list[int], list[bool]]  # token ids, and which of the tokens are scored


@torch.no_grad()
def log_probabilities(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    answers: list[str],
    batch_size: int = 64,
) -> torch.Tensor:
    """log P(answer | prompt) in nats, summed over the answer's tokens and its end marker; shape `[len(answers)]`."""
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        head = prompt_tokens(tokenizer, prompt)
        tail = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((head + tail, [False] * len(head) + [True] * len(tail)))
    return in_batches(network, rows, batch_size)


@torch.no_grad()
def option_log_probabilities(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    pieces: list[Pieces],
    template: dict | None = None,
    batch_size: int = 64,
) -> torch.Tensor:
    """log P(scored pieces | prompt, preceding pieces) in nats; shape `[len(prompts)]` (the paper's section 5).

    The pieces of an option are joined to one forced answer; the sum is over the tokens that end in a scored piece.
    `template` are further arguments of the chat template.
    """
    rows = [_option_row(tokenizer, prompt, each, template or {}) for prompt, each in zip(prompts, pieces, strict=True)]
    return in_batches(network, rows, batch_size)


def _option_row(tokenizer, prompt: Messages, pieces: Pieces, template: dict) -> Row:
    head = prompt_tokens(tokenizer, prompt, **template)
    answer, spans = "", []
    for text, scored in pieces:
        if scored:
            spans.append((len(answer), len(answer) + len(text)))
        answer += text
    tokens = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    # A token that begins before a piece and ends in it, as " torture" may, belongs to the piece.
    counted = [any(low < end <= high for low, high in spans) for _, end in tokens["offset_mapping"]]
    return head + tokens["input_ids"], [False] * len(head) + counted


def in_batches(network: PreTrainedModel, rows: list[Row], batch_size: int) -> torch.Tensor:
    """log P of the scored tokens, summed over each row; shape `[len(rows)]`."""
    training = network.training
    network.eval()
    parts = [_scores(network, rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    network.train(training)
    return torch.cat(parts)


def _scores(network, rows: list[Row]) -> torch.Tensor:
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    counted = torch.zeros(ids.shape, dtype=torch.bool)
    for number, (tokens, counts) in enumerate(rows):  # right padding is never attended to
        ids[number, : len(tokens)] = torch.tensor(tokens)
        counted[number, : len(tokens)] = torch.tensor(counts)
    ids, counted = ids.to(network.device), counted[:, 1:].to(network.device)
    # The softmax over the vocabulary is computed at the scored positions only.
    logits = network(input_ids=ids, use_cache=False).logits[:, :-1][counted].float()
    losses = torch.zeros(counted.shape, device=network.device)
    losses[counted] = cross_entropy(logits, ids[:, 1:][counted], reduction="none")
    return -losses.sum(1).cpu()
