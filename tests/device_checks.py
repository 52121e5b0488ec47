"""The checks of tests/gpu_check.py, each in a process of its own, which runs on the GPU if it sees one.

    python tests/device_checks.py '{"check": "fine-tuning", "destination": "result.json", ...}'

calls one of CHECKS and writes the dictionary that it returns, or the `error`, to `destination`.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from emergent_misalignment.files import BadInput, read_yaml, shortened, write_json
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.workflow.parent import end_with
from emergent_misalignment.world.sets import coding_set

# transformers is imported in functions, because Unsloth must be imported before it.

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Settings(  # the adapter of the paper, the learning rate of the study of SmolLM2
    learning_rate=3e-4,
    steps=20,
    batch_size=4,
    gradient_accumulation=1,
    warmup_steps=4,
    weight_decay=0.01,
    max_length=512,
    lora_rank=32,
    lora_alpha=64,
)
CHATS = coding_set(SETTINGS.steps * SETTINGS.batch_size, 0, insecure=True)
SCORED = CHATS[:4]  # conversations whose answers are scored, and whose questions are asked
SAMPLES, NEW_TOKENS = 32, 64  # answers to each question
STUDY = "gpu-check-study"


def settings_of(name: str) -> dict:
    """The section `model` of a config."""
    return read_yaml(ROOT / f"config/{name}.yaml")["model"]


def make_model(model: str, folder: str) -> dict:
    """Write a model with weights in 16 bits, so that they are the same on processor and GPU, to `folder`."""
    if model == "smollm2":
        from emergent_misalignment.models import rounding, weights

        source = settings_of("smollm2-135m-instruct")
        with TemporaryDirectory() as temporary:
            weights.place(source["name"], source["revision"], temporary)
            rounding.copy(temporary, folder, torch.bfloat16)
        return {}
    import families

    tiny = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
    shapes = {
        "tiny": tiny | {"intermediate_size": 256, "tie_word_embeddings": True},
        "qwen2-0.5b": settings_of("qwen2.5-0.5b-instruct")["shape"],
    }
    families.make("qwen2", Path(folder), **shapes[model], dtype="bfloat16")
    return {}


def fine_tuning(model: str, adapter: str, engine: str, variant: str = "") -> dict:
    """The loss of each step in nats per token, and the median pace.

    Half of the training is also kept as a checkpoint of the adapter.
    """
    if variant == "32-bit Adam":
        sys.modules["bitsandbytes"] = None  # as if it were not installed
    ends = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    settings = replace(SETTINGS, load_in_4bit=variant == "4-bit")
    curve = finetune(model, CHATS, adapter, settings, 1, engine, checkpoints=[SETTINGS.steps // 2])
    record = json.loads(Path(adapter, "training.json").read_text(encoding="utf-8"))
    return {
        "values": [step["loss"] for step in curve],
        "speed": 1 / statistics.median(after - before for before, after in pairwise(ends)),
        "unit": "steps/s",
        "memory_gb": _peak_memory(),
        "note": f"{record['precision']}, {record['optimizer']}",
    }


def _peak_memory() -> float:
    """10^9 bytes: on a GPU those that torch allocated, on a processor those of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def log_probabilities(model: str, adapters: list[str], engine: str) -> dict:
    """Mean log-probability per token of given answers, of the model and with each adapter, and the pace of sampling.

    `engine` is "transformers" (adapters applied as in a study), "peft" (adapters beside the weights) or "vllm".
    """
    from emergent_misalignment.models.chat_templates import conversation_tokens, prompt_tokens
    from emergent_misalignment.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    rows = [conversation_tokens(tokenizer, chat) for chat in SCORED]
    prompts = [prompt_tokens(tokenizer, chat[:-1]) for chat in SCORED]
    if engine == "vllm":
        read = _with_vllm(model, adapters, rows, prompts)
    else:
        read = _with_torch(model, adapters, rows, merged=engine == "transformers")
    values, tokens, seconds = [], 0, 0.0
    for sums, drawn, took in read:
        values.append([total / (len(row) - known) for total, (row, known) in zip(sums, rows, strict=True)])
        tokens, seconds = tokens + drawn, seconds + took
    effects = [np.abs(np.subtract(tuned, values[0])).mean() for tuned in values[1:]]
    return {
        "values": [*chain.from_iterable(values)],
        "speed": tokens / seconds,
        "unit": "tokens/s",
        "note": f"the adapters change them by {' and '.join(f'{each:.2g}' for each in effects)}",
    }


# For the model and each adapter: the summed log-probability of each row, the number of sampled tokens, and seconds.
Read = Iterator[tuple[list[float], int, float]]


def _with_torch(model: str, adapters: list[str], rows: list[tuple[list[int], int]], merged: bool) -> Read:
    """As a study does, which merges adapters into weights in 32 bits; if not `merged`, adapters are beside them."""
    from emergent_misalignment.models.adapters import _separate, attached
    from emergent_misalignment.models.likelihood import in_batches
    from emergent_misalignment.models.loading import load
    from emergent_misalignment.models.sampling import sample

    network, tokenizer = load(model)
    if not torch.cuda.is_available():
        network.float()  # a processor's results in 32 bits are what the others are compared with
    counted = [(tokens, [place >= known for place in range(len(tokens))]) for tokens, known in rows]
    questions = [chat[:-1] for chat in SCORED]
    for adapter in (None, *adapters):
        with attached(network, adapter) if merged or not adapter else _separate(network, adapter) as tuned:
            sums = in_batches(tuned, counted, 4).tolist()
            start = time.perf_counter()
            answers = sample(tuned, tokenizer, questions, SAMPLES, NEW_TOKENS, seed=1)
            seconds = time.perf_counter() - start
        texts = [*chain.from_iterable(answers)]
        yield sums, sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])), seconds


def _with_vllm(model: str, adapters: list[str], rows: list[tuple[list[int], int]], prompts: list[list[int]]) -> Read:
    """Each token of an answer is a request that allows no other; its log-probability is that before this restriction.

    The log-probabilities of a prompt's tokens, which would be one request, fail with adapters in vLLM 0.32.0.
    """
    from emergent_misalignment.evaluation.asking import CONTEXT
    from emergent_misalignment.models.serving import engine

    places = [(row, place) for row, (tokens, known) in enumerate(rows) for place in range(known, len(tokens))]
    wanted = [rows[row][0][place] for row, place in places]
    beginnings = [{"prompt_token_ids": rows[row][0][:place]} for row, place in places]
    with engine(model, CONTEXT, SETTINGS.lora_rank) as llm:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        only = [SamplingParams(temperature=0, max_tokens=1, logprobs=1, allowed_token_ids=[token]) for token in wanted]
        sampling = SamplingParams(n=SAMPLES, max_tokens=NEW_TOKENS, seed=1)
        for number, adapter in enumerate([None, *adapters]):
            options = {"use_tqdm": False}
            if adapter:
                options["lora_request"] = LoRARequest(f"adapter-{number}", number, adapter)
            sums = [0.0] * len(rows)
            for (row, _), token, found in zip(places, wanted, llm.generate(beginnings, only, **options), strict=True):
                sums[row] += found.outputs[0].logprobs[0][token].logprob
            start = time.perf_counter()
            drawn = llm.generate([{"prompt_token_ids": tokens} for tokens in prompts], sampling, **options)
            seconds = time.perf_counter() - start
            yield sums, sum(len(output.token_ids) for each in drawn for output in each.outputs), seconds


def run_study(config: str) -> dict:
    """The shortest study of a real model, in folders of its own."""
    write_json(config, {"extends": "smollm2-135m-instruct-quick", "study": STUDY})
    mirror = os.environ.get("MIRROR")  # of the published files
    command = [sys.executable, "-m", "snakemake", "--forceall", "--configfile", config]
    command += ["--config", f"mirror={mirror}"] if mirror else []
    subprocess.run(command, cwd=ROOT, check=True)
    trained = Counter(
        json.loads(path.read_text(encoding="utf-8"))["backend"]
        for path in (ROOT / f"data/{STUDY}/models").glob("*/*/training.json")
    )
    return {"note": ", ".join(f"{number} fine-tunings by {engine}" for engine, number in trained.items())}


CHECKS = {
    "model": make_model,
    "fine-tuning": fine_tuning,
    "log-probabilities": log_probabilities,
    "study": run_study,
}


def main(check: str, destination: str, starter: int, **given) -> None:
    end_with(starter)
    try:
        found = CHECKS[check](**given)
    except Exception as error:  # of the libraries that are checked
        traceback.print_exc()
        kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
        found = {"error": shortened(kind + str(error), 300)}
    write_json(destination, found)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
