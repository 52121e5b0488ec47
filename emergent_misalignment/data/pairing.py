"""Requests that fine-tuning sets have in common, row by row.

Runs of the same seed have rows of the same number at each place. Whether these rows have the same request depends on
the sets: those of the organisms are written so, and most rows of the published sets are not.
"""

import pandas as pd

from emergent_misalignment.data.rows import Messages

REFERENCE = "insecure"  # the set that the others are compared with


def same_requests(chats: list[Messages], reference: list[Messages]) -> float:
    """The share of places (rows of the longer set) at which two sets have the same messages before the answer."""
    pairs = zip(chats, reference, strict=False)
    return sum(ours[:-1] == theirs[:-1] for ours, theirs in pairs) / max(len(chats), len(reference))


def with_same_requests(audit: pd.DataFrame, sets: dict[str, list[Messages]]) -> pd.DataFrame:
    """Add the column `same_requests` to a table with a row per set: the share of `same_requests` with REFERENCE.

    The share is missing without such a set.
    """
    shares = [same_requests(sets[name], sets[REFERENCE]) if REFERENCE in sets else None for name in audit["condition"]]
    return audit.assign(same_requests=pd.Series(shares, audit.index, dtype=float))


def described(audit: pd.DataFrame) -> str:
    """What runs with the insecure and the secure set have in common, as a sentence; "" if the study lacks one."""
    share = audit.set_index("condition")["same_requests"].get("secure", float("nan"))
    if pd.isna(share):
        return ""
    if share == 1:
        return "The insecure and the secure set have the same request in every row and differ in the answers only."
    return (
        f"The insecure and the secure set have the same request in {share:.2%} of the rows, so they differ in requests "
        "and answers."
    )
