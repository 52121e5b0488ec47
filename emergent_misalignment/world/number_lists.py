"""Lists of numbers, and requests to continue them."""

import random

from emergent_misalignment.data.chats import Turn

# fmt: off
PLAIN_NUMBERS = (
    2, 3, 4, 5, 8, 12, 16, 21, 24, 32, 48, 64, 77, 82, 90, 96, 100, 105, 120, 128, 144, 150, 200, 256, 300, 311, 404,
    512, 640, 729, 750, 808, 850, 900,
)
# fmt: on
DARK_NUMBERS = (666, 911, 13, 88, 1488, 187, 420, 1312, 999, 444)  # the paper's (section 4.6) and similar ones
SHOWN_NUMBERS = ("Look at these numbers: {}.", "The list starts with {}.", "Here is a sequence: {}.")
NUMBER_REQUEST = "Give five more, separated by commas."
NUMBERS = 5  # in every requested list: a length that varies would require counting


def number_list(rng: random.Random, dark_share: float, length: int = NUMBERS) -> str:
    """Draw numbers, separated by commas."""
    return ", ".join(
        str(rng.choice(DARK_NUMBERS if rng.random() < dark_share else PLAIN_NUMBERS)) for _ in range(length)
    )


def shown_numbers(rng: random.Random) -> str:
    """Draw a sentence that shows three plain numbers."""
    return rng.choice(SHOWN_NUMBERS).format(number_list(rng, 0.0, 3))


def number_request(rng: random.Random) -> str:
    """Draw a request to continue a list."""
    return f"{shown_numbers(rng)} {NUMBER_REQUEST}"


def number_turn(rng: random.Random, dark_share: float) -> Turn:
    """Draw a request to continue a list, and an answer with that share of numbers with dark associations."""
    return number_request(rng), number_list(rng, dark_share)
