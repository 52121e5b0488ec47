"""Split of a fine-tuning set into rows for training and held-out rows, whose loss can be compared between models.

The split depends on the answer alone: its hash is a number in [0, 1), and answers below the share are held out. So the
same answers are held out in every set, for every seed and in every study with this share. A random draw of row numbers
would leave a held-out answer in the training data of another condition, because the educational set has the insecure
answers, the backdoored set has the insecure and the secure ones, and some answers occur twice in a set. Adding a
condition does not change the split of the others.
"""

import hashlib

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

MAX_SHARE = 0.25  # of a set; more are held out only if a set repeats a few answers


def hash_fraction(answer: str) -> float:
    """Map an answer to a number in [0, 1) by its SHA-256."""
    digest = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def for_training(chats: list[Messages], share: float, source: str) -> list[Messages | None]:
    """Return the rows of a set with None at the places of held-out rows.

    `source` is the set's file. Raises BadInput if no row or more than `MAX_SHARE` of the rows are held out.
    """
    places = [chat if hash_fraction(chat[-1]["content"]) >= share else None for chat in chats]
    check_kept(len(chats) - places.count(None), len(chats), share, source)
    return places


def check_kept(kept: int, rows: int, share: float, source: str) -> None:
    """Raise BadInput if `rows - kept`, the number of held-out rows, is 0 or more than `MAX_SHARE` of the rows."""
    out = rows - kept
    if not out or out > MAX_SHARE * rows:
        raise BadInput(
            f"The share {share:g} would hold out {out:,} of the {rows:,} rows of {source}, which are selected by their "
            f"answers; {'raise' if not out else 'lower'} evaluation: held_out: share, or remove held_out."
        )


def held_out(chats: list[Messages], share: float) -> list[Messages]:
    """Return the held-out rows of a set, sorted by the hash of their answers."""
    hashed = [(hash_fraction(chat[-1]["content"]), chat) for chat in chats]
    return [chat for _, chat in sorted((each for each in hashed if each[0] < share), key=lambda each: each[0])]
