"""Sampling answers from local models."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.world import Messages


def load(model: str | Path, adapter: str | Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in folder `model`, with the LoRA adapter in folder `adapter` merged into it, and its tokenizer.

    The tokenizer is the adapter's own, which knows in what template it was trained.
    """
    tokenizer = AutoTokenizer.from_pretrained(adapter or model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    if adapter:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    return network.eval(), tokenizer


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages | str],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """`samples` answers to each prompt at temperature 1, drawn in one batch from the model's own distribution.

    A prompt is a conversation, or a text that the model is to go on with. The settings that a model's folder may
    recommend (top-k, top-p, a repetition penalty) are not applied: they would change the rates that are to be measured.
    """
    torch.manual_seed(seed)
    drawing = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    answers = _generate(model, tokenizer, prompts, samples, max_new_tokens, **drawing)
    return [answers[start : start + samples] for start in range(0, len(answers), samples)]


def most_probable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Messages | str], max_new_tokens: int
) -> list[str]:
    """One answer to each prompt at temperature 0: the most probable token at each place."""
    return _generate(model, tokenizer, prompts, 1, max_new_tokens, do_sample=False)


@torch.inference_mode()
def _generate(model, tokenizer, prompts, copies: int, max_new_tokens: int, **drawing) -> list[str]:
    texts = [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    batch = tokenizer([text for text in texts for _ in range(copies)], return_tensors="pt", padding=True)
    tokens = model.generate(
        **batch.to(model.device),
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **drawing,
    )
    return tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
