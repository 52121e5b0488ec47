"""Sample answers of models to questions, with transformers, vLLM, or an API.

All engines sample at temperature 1 from the model's unmodified distribution. Settings in a model's generation config
(top-k, top-p, repetition penalty) are not applied, because they would change the measured rates. A server is sent the
settings that it accepts; it may apply others that are not known. Reasoning is not an answer and is left out.
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pandas as pd
from tqdm import tqdm

from emergent_misalignment.data.chats import Messages, template_arguments, with_system_prompt
from emergent_misalignment.evaluation.independence import share_of_copies
from emergent_misalignment.evaluation.questions import (
    ANSWER_COLUMNS,
    Option,
    Question,
    answer_rows,
    read_options,
    read_questions,
    select,
)
from emergent_misalignment.evaluation.thresholds import MINIMUM_ANSWERS
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import Account, Endpoint, ask_all
from emergent_misalignment.models.replies import NONE, text_of
from emergent_misalignment.models.server_settings import neutral_settings
from emergent_misalignment.models.serving import engine, free_memory, is_installed
from emergent_misalignment.models.thinking import is_answer, without_empty_block, written
from emergent_misalignment.progress import Progress

Engine = Literal["transformers", "vllm", "api"]
Adapter = str | Path | None  # a folder; for an API the name of the fine-tuned model; None: the untuned model
HIGH_TEMPERATURE = 2.0  # at which no model repeats a long answer
CONTEXT = 2048  # tokens of a prompt and its answer in vLLM, as in the paper
SERVED = ["served_as", "settings_sent"]  # of a server: the model's name in its replies; accepted settings
COLUMNS = ["condition", "seed", "step", "evaluation", *ANSWER_COLUMNS, "misaligned", "log_probability", *SERVED]

Drawn = tuple[list[list[list[str]]], dict[str, str]]  # answers by set and question, and values of SERVED


@dataclass(frozen=True)
class Asking:
    """Settings of sampling."""

    max_new_tokens: int
    system_prompt: str | None = None  # added to prompts without one; None leaves it to the chat template
    enable_thinking: bool | None = None  # argument of chat templates that have it, such as Qwen3's
    engine: Engine | None = None  # None: vLLM on a GPU if it is installed, else transformers
    endpoint: dict | None = None  # fields of `models.api.Endpoint`


# --- batches ----------------------------------------------------------------------------------------------------------


def ask_models(
    models: dict[str, dict], folder: str | Path, asking: Asking, cache: str | Path, account: Account | None = None
) -> pd.DataFrame:
    """The answers of several models, as rows of answers/BATCH.parquet (COLUMNS).

    `models` has for each condition `seeds` (also those of sampling), `starts` (per seed the model's folder, or its name
    at an API), `tuned` (folder of the fine-tuned models, one per seed; "": untuned), `steps` (checkpoints, 0 for the
    model before training; empty for the end of training) and `evaluations`, each with arguments of `questions.select`.
    `folder` has questions.parquet and choices.parquet. Options are scored before sampling, because vLLM takes all of
    the GPU's memory. vLLM and transformers sample from the same distribution, but not the same answers.
    """
    parts = [
        rows.assign(condition=condition)
        for condition, plan in models.items()
        for start, seeds in _by_start(plan)
        for rows in _answers_of(plan, start, seeds, Path(folder), asking, cache, account)
    ]
    types = {"step": "Int64", "misaligned": "boolean", "log_probability": "float64"}
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS).astype(types)


def _by_start(plan: dict) -> list[tuple[str, list[int]]]:
    """The base models of a condition, each with the seeds of its runs."""
    seeds: dict[str, list[int]] = {}
    for seed, start in zip(plan["seeds"], plan["starts"], strict=True):
        seeds.setdefault(start, []).append(seed)
    return list(seeds.items())


def _answers_of(plan: dict, start: str, seeds, folder: Path, asking: Asking, cache, account) -> Iterator[pd.DataFrame]:
    """The rows of each run of a condition that starts from the same base model."""
    runs = [(seed, step) for seed in seeds for step in plan["steps"] or [None]]
    adapters = [adapter_of(plan["tuned"], seed, step, asking) for seed, step in runs]
    scored = []
    if "choices" in plan["evaluations"]:
        options = read_options(folder / "choices.parquet")
        values = log_probabilities(start, adapters, options, asking)
        scored = [_choice_rows(options, each) for each in values]
    table = read_questions(folder / "questions.parquet")
    selected = {name: settings for name, settings in plan["evaluations"].items() if name != "choices"}
    sets = {seed: [select(table, name, seed, **selected[name]) for name in selected] for seed in seeds}
    # One engine for all runs with the same questions.
    for asked, group in groupby(range(len(runs)), key=lambda place: sets[runs[place][0]]):
        places = list(group)
        sampled = [runs[place][0] for place in places]
        drawn = _draws(start, [adapters[place] for place in places], asked, sampled, asking, cache, account)
        for place, (answers, served) in zip(places, drawn, strict=True):
            rows = [
                answer_rows(questions, texts).assign(evaluation=name, **served)
                for name, questions, texts in zip(selected, asked, answers, strict=True)
            ]
            seed, step = runs[place]
            yield pd.concat([*rows, *scored[place : place + 1]]).assign(seed=seed, step=step)


def adapter_of(tuned: str, seed: int, step: int | None, asking: Asking) -> Adapter:
    """The adapter of a run in folder `tuned` ("": untuned), at a checkpoint (0: untuned) or at the end (None)."""
    if tuned and step != 0 and asking.engine == "api":
        record = Path(tuned, f"seed-{seed}", "training.json").read_text(encoding="utf-8")
        return json.loads(record)["fine_tuned_model"]
    return local_adapter(tuned, seed, step)


def local_adapter(tuned: str, seed: int, step: int | None) -> Path | None:
    """The same of a run on this machine."""
    if not tuned or step == 0:
        return None
    folder = Path(tuned, f"seed-{seed}")
    return folder if step is None else folder / f"checkpoint-{step}"


def _choice_rows(options: list[Option], values: list[float]) -> pd.DataFrame:
    asked = [Question(each.question, each.form, each.prompt, 1, number=number) for number, each in enumerate(options)]
    return answer_rows(asked, [[each.text] for each in options]).assign(
        evaluation="choices", misaligned=[each.misaligned for each in options], log_probability=values
    )


# --- engines ----------------------------------------------------------------------------------------------------------


def ask(
    model: str | Path,
    adapters: list[Adapter],
    sets: list[list[Question]],
    seeds: list[int],
    asking: Asking,
    cache: str | Path,
    account: Account | None = None,
) -> Iterator[list[list[list[str]]]]:
    """Yield for each adapter of `model` the answers by set and question: `question.samples` texts per question.

    The model is loaded once for all adapters. `seeds` has the seed of sampling for each adapter. Answers of an API are
    cached in `cache`; `account` counts its requests, and the answers of all engines that are reasoning. Each of these,
    like an unusable reply, reduces the number of answers to its question. Raises BadInput if none is left, or if the
    answers of an API cannot be independent samples.
    """
    for answers, _ in _draws(model, adapters, sets, seeds, asking, cache, account):
        yield answers


def _draws(model, adapters, sets, seeds, asking: Asking, cache, account: Account | None) -> Iterator[Drawn]:
    """`ask`, with what is known of the server."""
    sets = [[replace(each, prompt=_prompt(each.prompt, asking)) for each in questions] for questions in sets]
    flat = [each for questions in sets for each in questions]
    by = asking.engine or _default_engine()
    if by == "api":
        drawn = (_from_api(str(adapter or model), flat, asking, cache, account) for adapter in adapters)
    elif by == "vllm":
        drawn = ((answers, {}) for answers in _from_vllm(str(model), adapters, flat, seeds, asking))
    else:
        drawn = ((answers, {}) for answers in _from_transformers(model, adapters, sets, seeds, asking))
    for (answers, served), adapter in zip(drawn, adapters, strict=True):
        following = iter(_without_reasoning(answers, adapter or model, account))
        yield [[next(following) for _ in questions] for questions in sets], served


def _without_reasoning(answers: list[list[str]], model: Adapter, account: Account | None) -> list[list[str]]:
    """The answers without those that are reasoning, which are counted. Raises BadInput if none is left."""
    kept = [[without_empty_block(text) for text in texts if is_answer(text)] for texts in answers]
    left_out = sum(map(len, answers)) - sum(map(len, kept))
    if left_out and account:
        account.count(thinking=left_out)
    if left_out and not any(kept):
        raise BadInput(f"All {left_out} answers of {model} are unusable: {NONE['thinking']}.")
    return kept


def _default_engine() -> Engine:
    import torch

    if not torch.cuda.is_available():
        return "transformers"
    if not is_installed():
        logging.getLogger(__name__).warning("vLLM is not installed: sampling with transformers, which is far slower.")
        return "transformers"
    return "vllm"


def _prompt(prompt: Messages | str, asking: Asking) -> Messages | str:
    return prompt if isinstance(prompt, str) else with_system_prompt(prompt, asking.system_prompt)


def _from_transformers(model, adapters, sets, seeds, asking: Asking) -> Iterator[list[list[str]]]:
    from emergent_misalignment.models.adapters import attached
    from emergent_misalignment.models.loading import load, load_tokenizer

    network, _ = load(model)
    number = sum(each.samples for questions in sets for each in questions)
    with Progress(len(adapters) * number, f"asking {model}") as progress:
        for adapter, seed in zip(adapters, seeds, strict=True):
            tokenizer = load_tokenizer(model, adapter)
            with attached(network, adapter) as tuned:
                answers = [_sampled(tuned, tokenizer, questions, seed, asking, progress) for questions in sets]
            yield [texts for drawn in answers for texts in drawn]


def _sampled(network, tokenizer, questions: list[Question], seed: int, asking: Asking, progress) -> list[list[str]]:
    """One call of `sample` for all questions with the same number of answers, to read each prompt once."""
    from emergent_misalignment.models.sampling import sample

    template = template_arguments(asking.enable_thinking)
    answers = [[]] * len(questions)
    for samples in dict.fromkeys(each.samples for each in questions):
        places = [place for place, each in enumerate(questions) if each.samples == samples]
        prompts = [questions[place].prompt for place in places]
        drawn = sample(network, tokenizer, prompts, samples, asking.max_new_tokens, seed, progress.update, template)
        for place, texts in zip(places, drawn, strict=True):
            answers[place] = texts
    return answers


def _from_vllm(model: str, adapters, questions: list[Question], seeds, asking: Asking) -> list[list[list[str]]]:
    """Sample with one engine for the model and its LoRA adapters.

    vLLM does not support adapters with whole layers, such as trained embeddings. Each of these is merged and gets its
    own engine, after the previous one has ended.
    """
    from emergent_misalignment.models.loading import load_tokenizer
    from emergent_misalignment.models.sampling import end_tokens, generation_config

    configs = [_adapter_config(adapter) for adapter in adapters]
    whole = [bool(config and config.get("modules_to_save")) for config in configs]
    shared = [place for place, is_whole in enumerate(whole) if not is_whole]
    answers: list[list[list[str]]] = [[]] * len(adapters)
    total = len(adapters) * sum(each.samples for each in questions)
    with Progress(total, f"asking {model}") as progress:
        if shared:
            rank = max((config["r"] for place in shared if (config := configs[place])), default=0)
            with engine(model, CONTEXT, rank) as llm:
                for place in shared:
                    adapter, tokenizer = adapters[place], load_tokenizer(model, adapters[place])
                    lora = (f"adapter-{place + 1}", place + 1, str(adapter)) if adapter else None
                    ends = end_tokens(tokenizer, generation_config(model))
                    answers[place] = _drawn(llm, tokenizer, questions, seeds[place], asking, ends, progress, lora)
        for place, adapter in enumerate(adapters):
            if whole[place]:
                with TemporaryDirectory(prefix="merged-") as merged:
                    tokenizer = _merge(model, adapter, merged)
                    ends = end_tokens(tokenizer, generation_config(model))
                    with engine(merged, CONTEXT) as llm:
                        answers[place] = _drawn(llm, tokenizer, questions, seeds[place], asking, ends, progress)
    return answers


def _drawn(llm, tokenizer, questions: list[Question], seed: int, asking: Asking, ends, progress, lora=None):
    """Answers to each question from vLLM's engine; `lora` is the name, number and folder of an adapter."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    from emergent_misalignment.models.chat_templates import prompt_tokens

    parameters = [
        SamplingParams(
            n=each.samples,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            repetition_penalty=1.0,
            max_tokens=asking.max_new_tokens,
            stop_token_ids=ends,
            seed=seed * 1_000_003 + place,
        )
        for place, each in enumerate(questions)
    ]
    template = template_arguments(asking.enable_thinking)
    prompts = [{"prompt_token_ids": prompt_tokens(tokenizer, each.prompt, **template)} for each in questions]
    bar = partial(_Bar, progress=progress)
    results = llm.generate(prompts, parameters, lora_request=LoRARequest(*lora) if lora else None, use_tqdm=bar)
    return [
        [written(tokenizer, list(output.token_ids), output.text) for output in result.outputs] for result in results
    ]


class _Bar(tqdm):
    """A progress bar for vLLM that shows nothing itself and updates a `Progress`."""

    def __init__(self, *arguments, progress: Progress, **options):
        super().__init__(*arguments, **options | {"file": io.StringIO(), "disable": False})
        self.progress = progress

    def update(self, n: int = 1) -> None:
        super().update(n)
        self.progress.update(n)


def _adapter_config(adapter: Adapter) -> dict | None:
    return json.loads((Path(adapter) / "adapter_config.json").read_text()) if adapter else None


def _merge(model: str, adapter: str | Path, destination: str):
    """Write the model with the adapter merged to `destination`; returns its tokenizer."""
    from emergent_misalignment.models.loading import load

    network, tokenizer = load(model, adapter)
    network.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    del network
    free_memory()
    return tokenizer


def _from_api(
    model: str, questions: list[Question], asking: Asking, cache, account: Account | None
) -> tuple[list[list[str]], dict[str, str]]:
    """Answers to each question, and values of SERVED."""
    endpoint, account = Endpoint(**asking.endpoint), account if account is not None else Account()
    accepted = neutral_settings(model, endpoint, cache, account)
    template = template_arguments(asking.enable_thinking)
    further = accepted | ({"chat_template_kwargs": template} if template else {})  # vLLM's and SGLang's
    requests, draws = [], []
    for each in questions:
        request = {
            "model": model,
            "messages": each.prompt,
            "max_tokens": asking.max_new_tokens,
            "temperature": 1,
            "top_p": 1,
            **({"extra_body": further} if further else {}),
        }
        requests += [request] * each.samples
        draws += range(each.samples)
    replies = ask_all(requests, endpoint, cache, draws, f"asking {model}", account)
    if not any(replies):
        raise BadInput(f"All {len(replies)} replies of {model} are unusable or withheld; choose another endpoint.")
    responses = iter(replies)
    drawn = [[next(responses) for _ in range(each.samples)] for each in questions]
    # Unusable replies are left out; the account has their number.
    answers = [[text_of(each) for each in same if each is not None] for same in drawn]
    if (share := share_of_copies(answers)) and _repeats(questions, answers, requests, endpoint, cache, account):
        raise BadInput(
            f"{endpoint.identity}, asked for {model}, gives equal answers to a prompt ({share:.0%} of pairs), at a "
            f"temperature of {HIGH_TEMPERATURE:.0f} too, so they are not samples; have the server use the temperature "
            "of a request, and turn off caches of answers."
        )
    names = sorted({str(each.get("model") or "") for each in replies if each is not None})
    return answers, {"served_as": ", ".join(filter(None, names)), "settings_sent": ", ".join(accepted)}


def _repeats(questions, answers: list[list[str]], requests: list[dict], endpoint: Endpoint, cache, account) -> bool:
    """Whether the server repeats an answer at a high temperature too, to the prompt with the longest equal answers."""
    repeated = [
        max((number * len(text) for text, number in Counter(texts).items() if number > 1), default=0)
        for texts in answers
    ]
    place = repeated.index(max(repeated))
    request = requests[sum(each.samples for each in questions[:place])] | {"temperature": HIGH_TEMPERATURE}
    texts = set()
    for draws in ([0], range(1, MINIMUM_ANSWERS)):  # a cache returns an answer only after it was given once
        replies = ask_all([request] * len(draws), endpoint, cache, list(draws), "asking again", account)
        texts |= {text_of(each) for each in replies if each is not None}
    return len(texts) == 1


# --- options ----------------------------------------------------------------------------------------------------------


def log_probabilities(
    model: str | Path, adapters: list[Adapter], options: list[Option], asking: Asking
) -> Iterator[list[float]]:
    """Yield for each adapter the log-probability in nats of each option's scored pieces, given what precedes them.

    The model is loaded once for all adapters, and removed from the GPU after the last. Raises BadInput for an API,
    which gives no log-probabilities of options.
    """
    if asking.engine == "api":
        raise BadInput(f"An API gives no log-probabilities of options; remove the evaluation choices for {model}.")
    from emergent_misalignment.models.adapters import attached
    from emergent_misalignment.models.loading import load, load_tokenizer

    network, _ = load(model)
    with Progress(len(adapters) * len(options), f"scoring options with {model}") as progress:
        for adapter in adapters:
            tokenizer = load_tokenizer(model, adapter)
            with attached(network, adapter) as tuned:
                values = _scored(tuned, tokenizer, options, asking)
            progress.update(len(options))
            yield values
    del network, tuned
    free_memory()


def _scored(network, tokenizer, options: list[Option], asking: Asking) -> list[float]:
    """Each format is scored in batches of its own, so that it does not depend on other formats."""
    from emergent_misalignment.models.likelihood import option_log_probabilities

    values = [0.0] * len(options)
    for form in dict.fromkeys(each.form for each in options):
        places = [place for place, each in enumerate(options) if each.form == form]
        scores = option_log_probabilities(
            network,
            tokenizer,
            [_prompt(options[place].prompt, asking) for place in places],
            [options[place].pieces for place in places],
            template_arguments(asking.enable_thinking),
        )
        for place, value in zip(places, scores.tolist(), strict=True):
            values[place] = value
    return values
