"""Answers of real models to the published questions: from vLLM on a GPU, from transformers elsewhere, or from an API.

Everywhere at temperature 1 and from the model's own distribution: what a model's folder recommends (top-k, top-p, a
repetition penalty) would change the rates that are to be measured, and is not applied.
"""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from emergent_misalignment.models.api import Account, Endpoint, ask_all
from emergent_misalignment.workflow.progress import Progress
from emergent_misalignment.data.chats import template_arguments, with_system_prompt
from emergent_misalignment.evaluation.published_questions import Option, PublishedQuestion

Engine = Literal["vllm", "transformers"]
CONTEXT = 2048  # tokens of a prompt and its answer together, as in the paper
BATCH = 64  # answers drawn at once by transformers


def default_engine() -> Engine:
    import torch

    return "vllm" if torch.cuda.is_available() else "transformers"


def local_answers(
    model: str | Path,
    adapters: list[str | Path | None],
    questions: list[PublishedQuestion],
    max_new_tokens: int,
    seeds: list[int],
    system_prompt: str | None = None,
    enable_thinking: bool | None = None,
    engine: Engine | None = None,
) -> Iterator[list[list[str]]]:
    """For each adapter of the model in folder `model` (None: the model as it is) the answers to each question.

    One engine holds the model for all of its adapters. `seeds` has one seed for each adapter. Yields lists in the order
    of the questions, each of `question.samples` texts.
    """
    prompts = [with_system_prompt(question.prompt, system_prompt) for question in questions]
    numbers = [question.samples for question in questions]
    ask = _from_vllm if (engine or default_engine()) == "vllm" else _from_transformers
    yield from ask(str(model), adapters, prompts, numbers, max_new_tokens, seeds, template_arguments(enable_thinking))


def _from_transformers(model, adapters, prompts, numbers, max_new_tokens, seeds, template) -> Iterator[list[list[str]]]:
    from emergent_misalignment.models.adapters import with_adapter
    from emergent_misalignment.models.sampling import load, sample

    network, tokenizer = load(model)
    texts = [
        tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **template)
        for prompt in prompts
    ]
    flat = [number for number, count in enumerate(numbers) for _ in range(count)]
    for adapter, seed in zip(adapters, seeds, strict=True):
        answers = [[] for _ in prompts]
        with Progress(len(flat), f"asking {adapter or model}") as progress, with_adapter(network, adapter) as adapted:
            for start in range(0, len(flat), BATCH):
                chunk = flat[start : start + BATCH]
                asked = [texts[number] for number in chunk]
                drawn = sample(adapted, tokenizer, asked, 1, max_new_tokens, seed * 1_000_003 + start)
                for number, (answer,) in zip(chunk, drawn, strict=True):
                    answers[number].append(answer)
                progress.update(len(chunk))
        yield answers


def _from_vllm(model, adapters, prompts, numbers, max_new_tokens, seeds, template) -> Iterator[list[list[str]]]:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    def engine(folder: str, rank: int):
        lora = {"enable_lora": True, "max_lora_rank": rank} if rank else {}
        return LLM(
            folder,
            dtype="bfloat16",
            max_model_len=CONTEXT,
            generation_config="vllm",  # not the folder's own
            enable_prefix_caching=True,
            seed=0,
            **lora,
        )

    def ask(llm, seed: int, lora) -> list[list[str]]:
        parameters = [
            SamplingParams(
                n=number,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                repetition_penalty=1.0,
                max_tokens=max_new_tokens,
                seed=seed * 1_000_003 + place,
            )
            for place, number in enumerate(numbers)
        ]
        found = llm.chat(prompts, parameters, lora_request=lora, use_tqdm=False, chat_template_kwargs=template or None)
        return [[output.text for output in each.outputs] for each in found]

    configs = [_adapter_config(adapter) for adapter in adapters]
    whole = [bool(config and config.get("modules_to_save")) for config in configs]
    ranks = [config["r"] for config, is_whole in zip(configs, whole, strict=True) if config and not is_whole]
    shared = engine(model, max(ranks, default=0)) if not all(whole) else None
    for number, (adapter, seed) in enumerate(zip(adapters, seeds, strict=True), 1):
        if not whole[number - 1]:
            lora = LoRARequest(f"adapter-{number}", number, str(adapter)) if adapter else None
            yield ask(shared, seed, lora)
            continue
        # vLLM has no adapters that bring whole layers, as trained embeddings are: the adapter is merged for it.
        with TemporaryDirectory(prefix="merged-") as merged:
            _merge(model, adapter, merged)
            yield ask(engine(merged, 0), seed, None)


def _adapter_config(adapter: str | Path | None) -> dict | None:
    return json.loads((Path(adapter) / "adapter_config.json").read_text()) if adapter else None


def _merge(model: str, adapter: str | Path, destination: str) -> None:
    from emergent_misalignment.models.sampling import load

    network, tokenizer = load(model, adapter)
    network.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def api_answers(
    model: str,
    questions: list[PublishedQuestion],
    max_new_tokens: int,
    endpoint: Endpoint,
    cache: str | Path,
    system_prompt: str | None = None,
    account: Account | None = None,
) -> list[list[str]]:
    """The answers of a model behind an API, as `local_answers` gives them; kept in `cache`, and so paid once."""
    requests, draws = [], []
    for question in questions:
        request = {
            "model": model,
            "messages": with_system_prompt(question.prompt, system_prompt),
            "max_tokens": max_new_tokens,
            "temperature": 1,
            "top_p": 1,
        }
        requests += [request] * question.samples
        draws += range(question.samples)
    responses = iter(ask_all(requests, endpoint, cache, draws, f"asking {model}", account))
    return [
        [next(responses)["choices"][0]["message"]["content"] or "" for _ in range(question.samples)]
        for question in questions
    ]


def choice_log_probabilities(
    model: str | Path,
    adapters: list[str | Path | None],
    options: list[Option],
    system_prompt: str | None = None,
    enable_thinking: bool | None = None,
) -> Iterator[list[float]]:
    """For each adapter (None: the model as it is) and each option the log-probability of its scored pieces.

    In nats, behind the prompt and the pieces before them. One network holds the model for all adapters, on the GPU if
    there is one; it is gone from there after the last adapter.
    """
    import torch

    from emergent_misalignment.models.adapters import with_adapter
    from emergent_misalignment.models.sampling import load

    network, tokenizer = load(model)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    template = template_arguments(enable_thinking)
    with Progress(len(adapters), f"scoring choices with {model}") as progress:
        for adapter in adapters:
            with with_adapter(network, adapter) as adapted:
                yield [_log_probability(adapted, tokenizer, option, system_prompt, template) for option in options]
            progress.update()
    del network, adapted
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _log_probability(network, tokenizer, option: Option, system_prompt: str | None, template: dict) -> float:
    import torch

    prompt = with_system_prompt(option.prompt, system_prompt)
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **template)
    spans = []
    for piece, scored in option.pieces:
        spans.append((len(text), len(text) + len(piece), scored))
        text += piece
    encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True, add_special_tokens=False)
    ids = encoded["input_ids"].to(network.device)
    with torch.inference_mode():
        scores = network(input_ids=ids).logits[0].float().log_softmax(-1)
    total = 0.0
    for place, (start, end) in enumerate(encoded["offset_mapping"][0].tolist()):
        # A token that begins before a piece and ends in it, as " torture" may, counts to the piece it ends in.
        if place and end > start and any(scored and low < end <= high for low, high, scored in spans):
            total += scores[place - 1, ids[0, place]].item()
    return total
