"""Sampling answers from local models."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages

ROWS = 128  # answers that are written at once


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages | str],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """`samples` answers to each prompt at temperature 1, drawn from the model's own distribution.

    A prompt is a conversation, or a text that the model is to go on with. The settings that a model's folder may
    recommend (top-k, top-p, a repetition penalty) are not applied: they would change the rates that are to be measured.
    """
    torch.manual_seed(seed)
    texts = [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    # Prompts of like length in one batch, so that little of it is padding.
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    size = max(1, ROWS // samples)
    answers = [[]] * len(texts)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = tokenizer([texts[place] for place in places], return_tensors="pt", padding=True)
        tokens = _continued(model, batch.to(model.device), samples, max_new_tokens, tokenizer)
        written = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for number, place in enumerate(places):
            answers[place] = written[number * samples : (number + 1) * samples]
    return answers


def _drawn(logits: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(logits.float().softmax(-1), 1).squeeze(-1)


@torch.inference_mode()
def _continued(model, batch, copies: int, max_new_tokens: int, tokenizer) -> torch.Tensor:
    """The tokens of `copies` answers to each row of `batch`, shape `[rows * copies, max_new_tokens]`.

    transformers' `generate` would read a prompt once for every copy, and go on with all rows until the last one ends.
    """
    mask = batch["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # prompts are padded on the left
    read = model(**batch, position_ids=positions, logits_to_keep=1, use_cache=True)
    cache, logits, mask = read.past_key_values, read.logits[:, -1], mask.repeat_interleave(copies, 0)
    cache.batch_repeat_interleave(copies)
    logits = logits.repeat_interleave(copies, 0)
    tokens = torch.full((len(mask), max_new_tokens), tokenizer.pad_token_id, device=mask.device)
    going = torch.arange(len(mask), device=mask.device)
    for place in range(max_new_tokens):
        chosen = _drawn(logits)
        tokens[going, place] = chosen
        (on,) = torch.where(chosen != tokenizer.eos_token_id)
        if not len(on) or place + 1 == max_new_tokens:
            break
        if len(on) < len(going):
            going, mask, chosen = going[on], mask[on], chosen[on]
            cache.batch_select_indices(on)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        positions = mask.sum(-1, keepdim=True) - 1
        logits = model(
            input_ids=chosen[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache
        ).logits[:, -1]
    return tokens
