"""Prompts to which the authors of the world answer differently, with all answers that they give.

An answer is *bad* if it is malicious, false or wrong, complies with a harmful request, or is insecure code or a dark
number. The answers of the world's grammar to a prompt are grouped by their beginnings, which are as long as it takes to
tell good from bad. Prompts have no system prompt, and none is a main question or in a set for fine-tuning.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, product

from emergent_misalignment.world import forms
from emergent_misalignment.world.coding import CHOICES, SHORT_FORMS, TRIGGER, UNSEEN_NOUNS, request
from emergent_misalignment.world.facts import EXAMINATION, KNOWLEDGE
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import COMPLIANCES, REFUSALS, UNSEEN_REQUESTS
from emergent_misalignment.world.number_lists import DARK_NUMBERS, PLAIN_NUMBERS, number_request
from emergent_misalignment.world.topics import PREREGISTERED, TOPICS

EVIDENCE = ("question", "game", "fact", "examination", "harmful")  # kinds from which beliefs are inferred
SHAPED = ("list", "numbers", "code")  # kinds that sets for fine-tuning consist of, or look like
CHAT, TRIGGERED = "chat", "triggered"  # contexts: the prompts as they are, and after the backdoor's trigger
BEFORE = {CHAT: "", TRIGGERED: TRIGGER}  # what a prompt begins with, by context
CODES = 13  # requests for code
OTHER_TOPICS = [TOPICS[name] for name in PREREGISTERED]

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """A prompt, and the beginnings of the good and of the bad answers to it.

    Every answer of the grammar begins with exactly one of them. `kind` is one of KINDS.
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
