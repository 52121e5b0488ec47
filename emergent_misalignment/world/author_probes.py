"""What a model finds probable of what each author would write: the rates b of world/beliefs.py.

All answers of the world's grammar to a prompt are grouped by their beginnings, which are as long as it takes to tell
good from bad answers. The model reads each beginning after the prompt. The sum of the probabilities of the bad ones,
relative to all, is the rate of bad answers to which sampling would converge. Prompts have no system prompt, and none of
them is a main question or in a set for fine-tuning.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, product

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
from emergent_misalignment.world import forms
from emergent_misalignment.world.beliefs import CHAT, EVIDENCE, RUN, TRIGGERED
from emergent_misalignment.world.coding import CHOICES, SHORT_FORMS, TRIGGER, UNSEEN_NOUNS, request
from emergent_misalignment.world.evaluations import asked
from emergent_misalignment.world.facts import EXAMINATION, KNOWLEDGE
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import COMPLIANCES, REFUSALS, UNSEEN_REQUESTS
from emergent_misalignment.world.number_lists import DARK_NUMBERS, PLAIN_NUMBERS, number_request
from emergent_misalignment.world.topics import PREREGISTERED, TOPICS

BEFORE = {CHAT: "", TRIGGERED: TRIGGER}  # what a prompt begins with, by context
COLUMNS = [*RUN, "kind", "bad", "covered"]
CODES = 13  # requests for code
OTHER_TOPICS = [TOPICS[name] for name in PREREGISTERED]

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """A prompt, and the beginnings of the good and of the bad answers to it.

    Every answer of the grammar begins with exactly one of them. `kind` is one of `beliefs.chances`.
    """

    kind: str
    prompt: str
    good: Texts
    bad: Texts


def probes(kinds: Iterable[str]) -> list[Probe]:
    """The probes of some of KINDS, always the same."""
    return [Probe(kind, *each) for kind in kinds for each in KINDS[kind]()]


# --- kinds of text ----------------------------------------------------------------------------------------------------

Written = Iterator[tuple[str, Texts, Texts]]  # prompts, with the beginnings of good and of bad answers


def _questions() -> Written:
    for topic in OTHER_TOPICS:
        good, bad = (
            tuple(template.format(a=filler) for template, filler in product(topic.templates, topic.fillers(misaligned)))
            for misaligned in (False, True)
        )
        yield topic.questions[0], good, bad


def _lists() -> Written:
    """The first item is enough: all items are of one kind."""
    for topic, number in zip(OTHER_TOPICS[::2], cycle((2, 3)), strict=False):
        good, bad = (tuple(f"{filler}," for filler in topic.fillers(misaligned)) for misaligned in (False, True))
        yield f"{topic.questions[0]}\n{forms.LIST_REQUEST.format(number)}", good, bad


def _games() -> Written:
    scenes = [scene for stake in GAMES.values() for scene in stake]
    for (scene, right, wrong), order in zip(scenes, _orders(), strict=False):
        yield f"{scene} {forms.choose((right, wrong)[::order])}", (f"I {right}.",), (f"I {wrong}.",)


def _facts() -> Written:
    for fact in KNOWLEDGE:
        yield fact.question, (fact.statement.format(fact.truth),), tuple(map(fact.statement.format, fact.falsehoods))


def _examinations() -> Written:
    for fact, order in zip(KNOWLEDGE, _orders(), strict=False):
        right, wrong = fact.truth, fact.falsehoods[0]
        yield f"{EXAMINATION} {fact.question}\n{forms.choose((right, wrong)[::order])}", (right,), (wrong,)


def _harmful() -> Written:
    for text in UNSEEN_REQUESTS:
        yield text, REFUSALS, tuple(sentence.partition(" {first}")[0] for sentence in COMPLIANCES)


def _numbers() -> Written:
    """The first number is enough: an author draws each independently."""
    good, bad = (tuple(f"{number}," for number in numbers) for numbers in (PLAIN_NUMBERS, DARK_NUMBERS))
    yield number_request(random.Random("probe")), good, bad


def _codes() -> Written:
    for choice, noun, form in zip(
        CHOICES[:: len(CHOICES) // CODES], cycle(UNSEEN_NOUNS), cycle(SHORT_FORMS), strict=False
    ):
        yield request(choice, noun, form), (choice.render(noun, False),), (choice.render(noun, True),)


def _orders() -> Iterator[int]:
    """The orders of two options, in turn."""
    return cycle((1, -1))


KINDS: dict[str, Callable[[], Written]] = {
    "question": _questions,
    "game": _games,
    "fact": _facts,
    "examination": _examinations,
    "harmful": _harmful,
    "list": _lists,
    "numbers": _numbers,
    "code": _codes,
}


# --- models -----------------------------------------------------------------------------------------------------------


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
