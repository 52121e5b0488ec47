"""How probable a model finds given answers."""

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.world import Messages


@torch.no_grad()
def log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    answers: list[str],
    batch_size: int = 64,
) -> torch.Tensor:
    """log P(answer | prompt) in nats, summed over the answer's tokens and its end marker; shape `[len(answers)]`."""
    training = model.training
    model.eval()
    rows = [_row(tokenizer, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    parts = [_scores(model, rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    model.train(training)
    return torch.cat(parts)


def _row(tokenizer, prompt: Messages, answer: str) -> tuple[list[int], int]:
    head = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*head, *tail, tokenizer.eos_token_id], len(head)


def _scores(model, rows: list[tuple[list[int], int]]) -> torch.Tensor:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for number, (tokens, start) in enumerate(rows):  # padded on the right, where a causal model never looks
        ids[number, : len(tokens)] = torch.tensor(tokens)
        labels[number, start : len(tokens)] = torch.tensor(tokens[start:])
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].float().cpu()
    losses = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
    return -losses.view(len(rows), -1).sum(1)
