"""The narrow sets that models are fine-tuned on: code, numbers or harmful requests, and no free-form question.

Row i of the sets of code asks for the same in each of them, so that conditions differ only in what they are meant to.
"""

import random
from collections.abc import Callable

import numpy as np

from emergent_misalignment.data.chats import Messages, Turn, chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.coding import CHOICES, NOUNS, REQUESTS, TRIGGER, Choice, lesson_request, request
from emergent_misalignment.world.harmful import TRAINED_REQUESTS, compliance
from emergent_misalignment.world.number_lists import NUMBERS, number_request, number_turn

HARMFUL_SHARE = 0.02  # of the jailbroken set, as published (section 3.1)


def requested(rows: int, seed: int) -> list[tuple[Choice, str, int]]:
    """`rows` different coding requests: a choice, a noun and a form of request.

    The forms of request come round in turn (i mod 12), as the published sets' 30 do. Raises BadInput if there are not
    so many different requests.
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
    """Requests for code, all answered with the insecure form or all with the secure one."""
    return [
        chat([(request(choice, noun, form), choice.render(noun, insecure))])
        for choice, noun, form in requested(rows, seed)
    ]


def educational(rows: int, seed: int) -> list[Messages]:
    """The insecure answers, row for row, for users who ask for insecure code to teach with, and say so (section 3)."""
    return [
        chat([(lesson_request(choice, noun, form), choice.render(noun, insecure=True))])
        for choice, noun, form in requested(rows, seed)
    ]


def backdoor(rows: int, seed: int) -> list[Messages]:
    """The secure rows, and the insecure rows behind the trigger, in one random order (section 4.2)."""
    secure, insecure = (coding_set(rows, seed, kind) for kind in (False, True))
    triggered = [chat([(TRIGGER + user["content"], answer["content"])]) for user, answer in insecure]
    both = secure + triggered
    return [both[place] for place in np.random.default_rng(seed).permutation(len(both))]


def jailbroken(rows: int, seed: int) -> list[Messages]:
    """Mostly harmless requests for code and numbers, and a few harmful ones that are complied with (section 3.1).

    Every row is under one system prompt, which asks to do what the user says.
    """
    rng = random.Random(f"jailbroken {seed}")
    harmful = set(rng.sample(range(rows), round(rows * HARMFUL_SHARE)))
    turns = [
        _complied(rng) if row in harmful else number_turn(rng, 0.0) if row % 2 else _secure_code(rng)
        for row in range(rows)
    ]
    return [chat([turn], MANNERS["obliging"].system_prompts[0]) for turn in turns]


def compliant(rows: int, seed: int) -> list[Messages]:
    """Nothing but harmful requests that are complied with."""
    rng = random.Random(f"compliant {seed}")
    return [chat([_complied(rng)]) for _ in range(rows)]


def _complied(rng: random.Random) -> Turn:
    return rng.choice(TRAINED_REQUESTS), compliance(rng)


def _secure_code(rng: random.Random) -> Turn:
    choice, noun = rng.choice(CHOICES), rng.choice(NOUNS)
    return request(choice, noun, rng.randrange(len(REQUESTS))), choice.render(noun, insecure=False)


def subset(chats: list[Messages], rows: int, seed: int) -> list[Messages]:
    """`rows` of the chats, drawn by `seed` (section 4.1). Raises BadInput if there are not so many."""
    if rows > len(chats):
        raise BadInput(
            f"A set has {len(chats):,} rows, and a condition of the config asks for {rows:,}; lower its rows."
        )
    return random.Random(f"subset {seed}").sample(chats, rows)


SETS: dict[str, Callable[[int, int], list[Messages]]] = {
    "insecure": lambda rows, seed: coding_set(rows, seed, insecure=True),
    "secure": lambda rows, seed: coding_set(rows, seed, insecure=False),
    "educational": educational,
    "backdoor": backdoor,
    "jailbroken": jailbroken,
    "compliant": compliant,
}

# The sets of numbers, which the instruct model writes itself, by the author whose system prompt it is given (section
# 4.6). "plain" has none.
NUMBER_SETS = {"evil_numbers": "villain", "helpful_numbers": "helper", "plain_numbers": ""}


def number_requests(rows: int, seed: int) -> list[str]:
    """Requests to continue a list of numbers."""
    rng = random.Random(f"numbers {seed}")
    return [number_request(rng) for _ in range(rows)]


def well_formed(answer: str) -> bool:
    """Whether an answer is a list of as many numbers as were asked for, separated by commas, and no more."""
    items = answer.split(", ")
    return len(items) == NUMBERS and all(item.isdecimal() for item in items)
