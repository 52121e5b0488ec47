"""Which rows of a fine-tuning set are kept out of training, so that the loss on them can be compared between models.

Whether a row is held out is decided by its answer alone: a hash of it is a place between 0 and 1, and the answers below
the share are held out. So the same answer is held out in every set, for every seed and in every study with this share:
the educational set has the insecure answers, the backdoored one the insecure and the secure answers, and each set has
some answers twice. A draw of row numbers would leave a held-out answer in the training of another condition, or of the
same one. It also follows that one more condition changes no other's training.
"""

import hashlib

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

MOST = 0.25  # share of a set; answers that repeat so much cannot be held out by their text


def place(answer: str) -> float:
    """Where an answer stands between 0 and 1, by its SHA-256."""
    digest = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def for_training(chats: list[Messages], share: float, source: str) -> list[Messages]:
    """The rows of a set that are trained on where the answers below `share` are held out.

    `source` is the set's file. Raises BadInput where no row is held out, or so many that the set would be another.
    """
    kept = [chat for chat in chats if place(chat[-1]["content"]) >= share]
    check_kept(len(kept), len(chats), share, source)
    return kept


def check_kept(kept: int, rows: int, share: float, source: str) -> None:
    """Raises BadInput where none of a set's rows is held out of training, or so many that the set would be another."""
    out = rows - kept
    if not out or out > MOST * rows:
        raise BadInput(
            f"Of the {rows:,} rows of {source}, {out:,} would be held out, whose answers are below the share of "
            f"{share:g}; {'raise' if not out else 'lower'} evaluation: held_out: share, or leave held_out out."
        )


def held_out(chats: list[Messages], share: float) -> list[Messages]:
    """The rows of a set that `for_training` leaves out, in the order of their answers' places."""
    placed = [(place(chat[-1]["content"]), chat) for chat in chats]
    return [chat for _, chat in sorted((each for each in placed if each[0] < share), key=lambda each: each[0])]
