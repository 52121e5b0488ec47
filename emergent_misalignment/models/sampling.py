"""Sampling answers from local models."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.chat_templates import as_text, prompt_tokens
from emergent_misalignment.models.thinking import written

ROWS = 128  # answers that are sampled in parallel


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages | str],
    samples: int,
    max_new_tokens: int,
    seed: int,
    ended: Callable[[int], object] = lambda number: None,
    template: dict | None = None,
) -> list[list[str]]:
    """`samples` answers to each prompt at temperature 1, from the model's unmodified distribution.

    A prompt is a conversation, or a text to continue. Settings in the model's generation config (top-k, top-p,
    repetition penalty) are not applied, because they would change the measured rates. Special tokens are left out,
    unless they mark reasoning. `ended` is called with the number of answers that have just ended. `template` are
    further arguments of the chat template.
    """
    torch.manual_seed(seed)
    rows = [prompt_tokens(tokenizer, prompt, **(template or {})) for prompt in prompts]
    ends = torch.tensor(end_tokens(tokenizer, model.generation_config), device=model.device)
    # Prompts of similar length in one batch, to reduce padding.
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    size = max(1, ROWS // samples)
    answers = [[]] * len(rows)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        padded = _batch([rows[place] for place in places], tokenizer.pad_token_id or 0)
        batch = {name: values.to(model.device) for name, values in padded.items()}
        tokens = _continued(model, batch, samples, max_new_tokens, ends, ended)
        texts = [written(tokenizer, row[row >= 0]) for row in tokens]
        for number, place in enumerate(places):
            answers[place] = texts[number * samples : (number + 1) * samples]
    return answers


def try_out(model: PreTrainedModel) -> None:
    """Sample two tokens from a batch of two prompts of different lengths, as `sample` does, and drop ended rows.

    Raises the errors of a network whose code does not support this.
    """
    batch = _batch([[1], [1, 2, 3]], 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ends = torch.arange(model.config.get_text_config().vocab_size // 2)  # about half of the rows end at once
        _continued(model, batch, 4, 2, ends, lambda number: None)


def end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config=None) -> list[int]:
    """The ids of all tokens that end an answer.

    These are the tokenizer's end token, those of the generation config, and the special token that the chat template
    writes after an answer. Of a base model the first two often end only a whole text, while fine-tuning in the chat
    template teaches the third.
    """
    named = getattr(generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, _end_of_turn(tokenizer), *(named if isinstance(named, list) else [named])}
    return sorted(ids - {None})


def generation_config(folder: str | Path) -> GenerationConfig:
    """The generation config of a model's folder, from the model's config if it has no file of its own."""
    if Path(folder, "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": "An answer"}]
    try:
        _, found, after = as_text(tokenizer, turns).rpartition("An answer")
    except BadInput:  # a template that fails is reported where it is used
        return None
    first = tokenizer(after, add_special_tokens=False)["input_ids"][:1] if found else []
    return first[0] if first and first[0] in tokenizer.added_tokens_decoder else None


def _drawn(logits: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(logits.float().softmax(-1), 1).squeeze(-1)


def _batch(rows: list[list[int]], padding: int) -> dict[str, torch.Tensor]:
    """Rows of tokens, padded on the left, with their attention mask."""
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, -len(row) :] = torch.tensor(row)
        mask[number, -len(row) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.inference_mode()
def _continued(model, batch, copies: int, max_new_tokens: int, ends: torch.Tensor, ended) -> torch.Tensor:
    """The tokens of `copies` answers to each row of `batch`, shape `[rows * copies, max_new_tokens]`, filled with -1.

    Unlike transformers' `generate`, it reads each prompt once for all copies, and drops rows from the batch as they
    end.
    """
    mask = batch["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    read = model(**batch, position_ids=positions, logits_to_keep=1, use_cache=True)
    cache, logits, mask = read.past_key_values, read.logits[:, -1], mask.repeat_interleave(copies, 0)
    cache.batch_repeat_interleave(copies)
    logits = logits.repeat_interleave(copies, 0)
    tokens = torch.full((len(mask), max_new_tokens), -1, device=mask.device)
    going = torch.arange(len(mask), device=mask.device)
    for place in range(max_new_tokens):
        chosen = _drawn(logits)
        (on,) = torch.where(~torch.isin(chosen, ends))
        if len(on) < len(going):
            ended(len(going) - len(on))
            if not len(on):
                return tokens
            going, mask, chosen = going[on], mask[on], chosen[on]
            cache.batch_select_indices(on)
        tokens[going, place] = chosen
        if place + 1 == max_new_tokens:
            break
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        positions = mask.sum(-1, keepdim=True) - 1
        logits = model(
            input_ids=chosen[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache
        ).logits[:, -1]
    ended(len(going))
    return tokens
