"""How often a model would give bad answers, computed from its probabilities of all answers to the authors' probes."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.evaluation.asking import local_adapter
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.likelihood import in_batches
from emergent_misalignment.models.loading import load
from emergent_misalignment.progress import Progress
from emergent_misalignment.world.author_probes import BEFORE, EVIDENCE, KINDS, probes
from emergent_misalignment.world.evaluations import asked

COLUMNS = ["condition", "seed", "step", "context", "kind", "bad", "covered"]


def of_models(models: dict[str, dict]) -> pd.DataFrame:
    """The rates of several models: a row per model, context and kind, with COLUMNS.

    `models` has for each condition `seeds`, `starts` (the base model of each), `tuned` (folder of the adapters; "":
    none), `steps` (checkpoints, at which only the kinds of EVIDENCE are read; empty for the end of
    training, whose `step` is missing) and `contexts` (of BEFORE).
    """
    tables = []
    with Progress(sum(len(plan["seeds"]) for plan in models.values()), "reading the authors' texts") as progress:
        for condition, plan in models.items():
            for seed, start in zip(plan["seeds"], plan["starts"], strict=True):
                network, tokenizer = load(start)
                for step, context in product(plan["steps"] or [None], plan["contexts"]):
                    with attached(network, local_adapter(plan["tuned"], seed, step)) as tuned:
                        own = rates(tuned, tokenizer, EVIDENCE if plan["steps"] else KINDS, BEFORE[context])
                    tables.append(own.assign(condition=condition, seed=seed, step=step, context=context))
                progress.update()
    return pd.concat(tables, ignore_index=True).astype({"step": "Int64"})[COLUMNS]


@torch.no_grad()
def rates(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kinds: Iterable[str] = tuple(KINDS), before: str = ""
) -> pd.DataFrame:
    """By `kind`, the means over prompts of `bad`, the rate of bad answers, and of `covered`.

    `covered` is the probability of all answers that begin as the grammar's do; `bad` is relative to it. `before` is
    what each prompt begins with.
    """
    asking = probes(kinds)
    rows = []
    for probe in asking:
        head = prompt_tokens(tokenizer, asked(before + probe.prompt))
        for beginning in probe.good + probe.bad:
            tail = tokenizer(beginning, add_special_tokens=False)["input_ids"]
            rows.append((head + tail, [False] * len(head) + [True] * len(tail)))
    order = np.argsort([len(tokens) for tokens, _ in rows], kind="stable")  # to reduce padding
    logs = np.empty(len(rows))  # in 64 bits, in which no probability of a text is 0
    logs[order] = in_batches(network, [rows[place] for place in order], batch_size=64)
    chances = iter(np.exp(logs))
    table = []
    for probe in asking:
        good, bad = (sum(next(chances) for _ in beginnings) for beginnings in (probe.good, probe.bad))
        table.append((probe.kind, bad / (good + bad), good + bad))
    return pd.DataFrame(table, columns=["kind", "bad", "covered"]).groupby("kind", sort=False).mean().reset_index()
