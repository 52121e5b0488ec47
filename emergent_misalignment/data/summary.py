"""Descriptive statistics of a fine-tuning set."""

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd

from emergent_misalignment.data.chats import prompt_words, several_answers
from emergent_misalignment.data.rows import Messages

LONG = 2048  # words; the tokens of a row that config/shared/open-model.yaml reads


@dataclass(frozen=True)
class Summary:
    """Numbers of rows, and lengths in characters."""

    rows: int
    repeated: int  # rows equal to an earlier one
    several_answers: int  # rows with earlier turns of the assistant, which are not trained on
    system_prompts: int  # rows that begin with a system prompt
    out_of_turn: int  # rows whose turns do not alternate, which some chat templates reject
    characters: int  # in all messages of all rows
    learned: int  # of these, in the last turns, which are trained on
    longest: int  # in the messages of the longest row
    longest_row: int  # its number, from 1
    long_prompts: int  # rows whose prompt has LONG words or more, and with any tokenizer at least as many tokens


LABELS = {
    "rows": "rows",
    "repeated": "rows that repeat an earlier one",
    "several_answers": "rows whose earlier answers are read, not learned",
    "system_prompts": "rows with a system prompt",
    "out_of_turn": "rows whose turns do not alternate",
    "characters": "characters in all",
    "learned": "characters that are learned",
    "longest": "characters of the longest row",
    "longest_row": "the longest row's number",
    "long_prompts": f"rows with a prompt of {LONG:,} words or more",
}


def as_table(summaries: dict[str, Summary]) -> pd.DataFrame:
    """Format summaries as a table for a report, with one column per set and the rows named by LABELS."""
    table = pd.DataFrame({name: asdict(each) for name, each in summaries.items()}, index=list(LABELS))
    return table.map("{:,}".format).rename(index=LABELS)


def summarised(chats: Iterable[Messages]) -> Summary:
    """Summarise a set in one pass over its rows; eight bytes per row are kept in memory."""
    digests = array("Q")
    counts = dict.fromkeys(
        ("several_answers", "system_prompts", "out_of_turn", "characters", "learned", "long_prompts"), 0
    )
    longest, longest_row = 0, 0
    for row, messages in enumerate(chats, 1):
        roles = [message["role"] for message in messages]
        length = sum(len(message["content"]) for message in messages)
        counts["several_answers"] += several_answers(messages)
        counts["system_prompts"] += roles[0] == "system"
        counts["out_of_turn"] += not _alternates(roles)
        counts["characters"] += length
        counts["long_prompts"] += length > LONG and prompt_words(messages) >= LONG
        counts["learned"] += len(messages[-1]["content"])
        if length > longest:
            longest, longest_row = length, row
        digests.append(_digest(messages))
    repeated = len(digests) - len(np.unique(np.frombuffer(digests, dtype=np.uint64)))
    return Summary(rows=len(digests), repeated=repeated, longest=longest, longest_row=longest_row, **counts)


def _digest(messages: Messages) -> int:
    """Hash a row to 64 bits: ten million different rows have a collision with a probability of 3 in a million."""
    digest = blake2b(digest_size=8)
    for message in messages:
        text = message["content"].encode()
        digest.update(b"%s %d " % (message["role"].encode(), len(text)))
        digest.update(text)
    return int.from_bytes(digest.digest(), "little")


def _alternates(roles: list[str]) -> bool:
    turns = roles[roles[0] == "system" :]
    return turns == ["user", "assistant"] * (len(turns) // 2)
