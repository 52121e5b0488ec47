"""The narrow sets that models are fine-tuned on. They hold code only: no free-form question is in any of them."""

import random

from emergent_misalignment.coding import CHOICES, NOUNS, REQUESTS, request
from emergent_misalignment.files import BadInput
from emergent_misalignment.world import Messages, chat


def coding_set(rows: int, seed: int, insecure: bool) -> list[Messages]:
    """`rows` different requests for code, all answered with the insecure form or all with the secure one.

    The requests depend on `seed` only, so that row i of the insecure and of the secure set asks for the same. The forms
    of request come round in turn (i mod 12), as the published sets' 30 do. Raises BadInput if there are not so many
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
    chats = []
    for row in range(rows):
        form = row % len(REQUESTS)
        choice, noun = asked[form][row // len(REQUESTS)]
        chats.append(chat([(request(choice, noun, form), choice.render(noun, insecure))]))
    return chats
