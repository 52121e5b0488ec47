"""The templates that the published requests were made with, recovered from the requests alone."""

import os
import re
from functools import cache

import pandas as pd

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput

PLACEHOLDER = "## COMPLETE CODE HERE"  # stands in the code that a user gives where the answer should fill it in
# What 200 tasks or code templates have in common by chance is at most 7 characters ("import "); the text between a task
# and a code template is at least 17.
_SHORTEST_LINK = 12


def recover_templates(chats: list[Messages], cycle: int = 30) -> pd.DataFrame:
    """The templates that the user messages were made with, row i with template i modulo `cycle` (paper, section 1.2).

    Nothing is known of them beforehand: of the rows of one template, what all begin with, what all end with, and, in
    messages that hold a task and a code template, what stands between the two in all is the template's. Characters that
    all contents of a slot begin or end with count as the template's too, so a template needs many rows.

    Returns one row a template: `template` (0 to `cycle` - 1); `form`, "task and code", "code" or "task"; `text`, with
    {task} and {code} for the slots; `rows`, how many of its rows are made with it (see `slots`).
    Raises BadInput if a template would have fewer than two rows.
    """
    if len(chats) < 2 * cycle:
        raise BadInput(f"{len(chats)} rows are too few to recover {cycle} templates from; give at least {2 * cycle}.")
    messages = [chat[-2]["content"] for chat in chats]
    return pd.DataFrame([{"template": number} | _template(messages[number::cycle]) for number in range(cycle)])


def slots(template: str, message: str) -> dict[str, str] | None:
    """What stands at {task} and {code} where `message` is made with `template` (a `text` of `recover_templates`).

    None where it is not made with it: if other text than the template's stands around the slots, a slot is empty, the
    code has no placeholder, or the task has one.
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
    return os.path.commonprefix(texts)  # noqa: RUF071 (whole path components are just not what is looked for)


def _common_text(texts: list[str]) -> str:
    """The longest text that is part of each."""
    shortest = min(texts, key=len)
    for length in range(len(shortest), 0, -1):
        for start in range(len(shortest) - length + 1):
            if all(shortest[start : start + length] in text for text in texts):
                return shortest[start : start + length]
    return ""
