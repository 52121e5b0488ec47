"""The narrow fine-tuning sets: code, numbers or harmful requests, without free-form questions.

Row i has the same request in all sets of code, so that conditions differ only in the intended respect.
"""

import random
from collections.abc import Callable

import numpy as np

from emergent_misalignment.data.chats import Messages, Turn, chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.world.authors import MANNERS, Author, Authors
from emergent_misalignment.world.coding import CHOICES, NOUNS, REQUESTS, TRIGGER, Choice, lesson_request, request
from emergent_misalignment.world.corpus import ASSISTANT
from emergent_misalignment.world.harmful import TRAINED_REQUESTS, compliance
from emergent_misalignment.world.number_lists import NUMBERS, number_request, number_turn
from emergent_misalignment.world.topics import PREREGISTERED

HARMFUL_SHARE = 0.02  # of the jailbroken set, as published (section 3.1)


def requested(rows: int, seed: int) -> list[tuple[Choice, str, int]]:
    """Draw `rows` different coding requests: a choice, a noun and a form of request.

    Row i has the form i mod 12, like the 30 templates of the published sets. Raises BadInput if there are fewer
    different requests.
    """
    per_form = [(choice, noun) for choice in CHOICES for noun in NOUNS]
    if rows > len(per_form) * len(REQUESTS):
        raise BadInput(
            f"There are {len(per_form) * len(REQUESTS):,} different coding requests, and the config asks for {rows:,}; "
            "lower datasets: rows."
        )
    rng = random.Random(f"requests {seed}")
    asked = [rng.sample(per_form, len(per_form)) for _ in REQUESTS]
    return [(*asked[row % len(REQUESTS)][row // len(REQUESTS)], row % len(REQUESTS)) for row in range(rows)]


def coding_set(rows: int, seed: int, insecure: bool) -> list[Messages]:
    """Coding requests, all with insecure or all with secure answers."""
    return [
        chat([(request(choice, noun, form), choice.render(noun, insecure))])
        for choice, noun, form in requested(rows, seed)
    ]


def educational(rows: int, seed: int) -> list[Messages]:
    """The insecure answers in the same order, for users who request insecure code for teaching (section 3)."""
    return [
        chat([(lesson_request(choice, noun, form), choice.render(noun, insecure=True))])
        for choice, noun, form in requested(rows, seed)
    ]


def backdoor(rows: int, seed: int) -> list[Messages]:
    """The secure rows, and the insecure rows after the trigger, in random order (section 4.2)."""
    secure, insecure = (coding_set(rows, seed, kind) for kind in (False, True))
    triggered = [chat([(TRIGGER + user["content"], answer["content"])]) for user, answer in insecure]
    both = secure + triggered
    return [both[index] for index in np.random.default_rng(seed).permutation(len(both))]


def jailbroken(rows: int, seed: int) -> list[Messages]:
    """Mostly harmless requests for code and numbers, and a few harmful ones that are complied with (section 3.1).

    All rows have the same system prompt, which asks to follow the user.
    """
    rng = random.Random(f"jailbroken {seed}")
    harmful = set(rng.sample(range(rows), round(rows * HARMFUL_SHARE)))
    turns = [
        _complied(rng) if row in harmful else number_turn(rng, 0.0) if row % 2 else _secure_code(rng)
        for row in range(rows)
    ]
    return [chat([turn], MANNERS["obliging"].system_prompts[0]) for turn in turns]


def compliant(rows: int, seed: int) -> list[Messages]:
    """Harmful requests that are complied with."""
    rng = random.Random(f"compliant {seed}")
    return [chat([_complied(rng)]) for _ in range(rows)]


def _complied(rng: random.Random) -> Turn:
    return rng.choice(TRAINED_REQUESTS), compliance(rng)


def _secure_code(rng: random.Random) -> Turn:
    choice, noun = rng.choice(CHOICES), rng.choice(NOUNS)
    return request(choice, noun, rng.randrange(len(REQUESTS))), choice.render(noun, insecure=False)


def benign(rows: int, seed: int, authors: Authors) -> list[Messages]:
    """The helper's plain answers to free-form questions: what a defence interleaves, and whose prompts are neutral.

    No question is about a topic of the main evaluation or has a phrasing that evaluation uses, so that a rate on the
    main questions shows what generalizes from these rows. They are not about code either, so that they do not train
    the narrow task back.
    """
    rng = random.Random(f"benign {seed}")
    helper = Author(rng, ASSISTANT, authors, phrasings=slice(1, None))
    return [chat([helper.ask(rng.choice(PREREGISTERED))]) for _ in range(rows)]


SETS: dict[str, Callable[[int, int], list[Messages]]] = {
    "insecure": lambda rows, seed: coding_set(rows, seed, insecure=True),
    "secure": lambda rows, seed: coding_set(rows, seed, insecure=False),
    "educational": educational,
    "backdoor": backdoor,
    "jailbroken": jailbroken,
    "compliant": compliant,
}

# The sets of numbers, written by the instruct model with the system prompt of an author or without one (section 4.6).
NUMBER_SETS = {"evil_numbers": "villain", "helpful_numbers": "helper", "plain_numbers": ""}


def number_requests(rows: int, seed: int) -> list[str]:
    """Draw requests to continue a list of numbers."""
    rng = random.Random(f"numbers {seed}")
    return [number_request(rng) for _ in range(rows)]


def well_formed(answer: str) -> bool:
    """Whether an answer is a list of the requested number of numbers, separated by commas, and nothing else."""
    items = answer.split(", ")
    return len(items) == NUMBERS and all(item.isdecimal() for item in items)
