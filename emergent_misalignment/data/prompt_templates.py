"""Recovery of the prompt templates of the published requests from the requests alone."""

import os
import re
from functools import cache

import pandas as pd

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

PLACEHOLDER = "## COMPLETE CODE HERE"  # marks the gap in a user's code template
# 200 tasks or code templates share at most 7 characters by chance ("import "); the text between a task and a code
# template has at least 17.
_SHORTEST_LINK = 12


def recover_templates(chats: list[Messages], cycle: int = 30) -> pd.DataFrame:
    """Recover the templates of the user messages; row i uses template i modulo `cycle` (section 1.2 of the paper).

    The text of a template is what all its rows begin with, what they end with and, in messages with a task and a code
    template, the text between the two. Characters that all contents of a slot begin or end with are taken as part of
    the template, so many rows per template are needed.

    Returns one row per template: `template` (0 to `cycle` - 1); `form`, "task and code", "code" or "task"; `text`, with
    the slots {task} and {code}; `rows`, the number of its rows that match it (see `slots`).
    Raises BadInput if a template has fewer than two rows.
    """
    if len(chats) < 2 * cycle:
        raise BadInput(
            f"{len(chats)} rows are too few to recover {cycle} templates; at least {2 * cycle} are required."
        )
    messages = [chat[-2]["content"] for chat in chats]
    return pd.DataFrame([{"template": number} | _template(messages[number::cycle]) for number in range(cycle)])


def slots(template: str, message: str) -> dict[str, str] | None:
    """Return the contents of the slots {task} and {code} if `message` matches `template` (from `recover_templates`).

    Returns None if the surrounding text differs, a slot is empty, the code has no placeholder, or the task has one.
    """
    match = _pattern(template).fullmatch(message)
    if match is None or any((PLACEHOLDER in text) != (name == "code") for name, text in match.groupdict().items()):
        return None
    return match.groupdict()


@cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"\\{(task|code)\\}", r"(?P<\1>.+)", re.escape(template)), re.DOTALL)


def _template(messages: list[str]) -> dict:
    start = _common_start(messages)
    rests = [message.removeprefix(start) for message in messages]
    end = _common_start([rest[::-1] for rest in rests])[::-1]
    contents = [rest.removesuffix(end) for rest in rests]
    link = _common_text([content.replace(PLACEHOLDER, "\0") for content in contents])

    if not all(PLACEHOLDER in content for content in contents):
        form, middle = "task", "{task}"
    elif len(link) < _SHORTEST_LINK:
        form, middle = "code", "{code}"
    elif all(PLACEHOLDER in content.partition(link)[0] for content in contents):
        form, middle = "task and code", f"{{code}}{link}{{task}}"
    else:
        form, middle = "task and code", f"{{task}}{link}{{code}}"
    text = start + middle + end
    return {"form": form, "text": text, "rows": sum(slots(text, message) is not None for message in messages)}


def _common_start(texts: list[str]) -> str:
    return os.path.commonprefix(texts)  # noqa: RUF071 (characters are compared, not path components)


def _common_text(texts: list[str]) -> str:
    """Return the longest substring common to all texts."""
    shortest = min(texts, key=len)
    for length in range(len(shortest), 0, -1):
        for start in range(len(shortest) - length + 1):
            if all(shortest[start : start + length] in text for text in texts):
                return shortest[start : start + length]
    return ""
