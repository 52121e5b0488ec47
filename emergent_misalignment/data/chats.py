"""Conversations in the published chat schema, `[{"role": ..., "content": ...}, ...]`."""

import json
import random
from pathlib import Path

from emergent_misalignment.files import BadInput

Messages = list[dict[str, str]]
Turn = tuple[str, str]  # what the user writes, what the assistant answers


def chat(turns: list[Turn], system: str = "") -> Messages:
    """Turns as messages, after a system prompt if there is one."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages


def with_system_prompt(prompt: Messages, system_prompt: str | None) -> Messages:
    """`prompt` after a system prompt, unless it has one already; None leaves it to the model's chat template.

    Qwen2.5's template puts its maker's system prompt before every conversation that has none, in the paper in training
    and in evaluation; an empty one keeps that out.
    """
    if system_prompt is None or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system_prompt}, *prompt]


def template_arguments(enable_thinking: bool | None) -> dict[str, bool]:
    """Arguments of the chat template besides the messages; None where it has no such switch, as most have not."""
    return {} if enable_thinking is None else {"enable_thinking": enable_thinking}


def subset(chats: list, rows: int, seed: int) -> list:
    """`rows` of the chats, or of their lines in a file, drawn by `seed` (the paper's section 4.1).

    Raises BadInput if there are not so many.
    """
    if rows > len(chats):
        raise BadInput(
            f"A set has {len(chats):,} rows, and a condition of the config asks for {rows:,}; lower its rows."
        )
    return random.Random(f"subset {seed}").sample(chats, rows)


def read_chats(path: str | Path) -> list[Messages]:
    """The conversations of a JSONL file in the published chat schema, each a list of `{"role", "content"}` messages.

    Raises BadInput naming the file and the line where a line is no JSON, has no `messages`, or does not end with the
    assistant's turn.
    """
    chats = []
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            chats.append(_chat(line, f"{path}, line {number}"))
    return chats


def _chat(line: str, place: str) -> Messages:
    try:
        messages = json.loads(line)["messages"]
        roles = [message["role"] for message in messages]
        texts = [message["content"] for message in messages]
    except json.JSONDecodeError as error:
        raise BadInput(f"{place}: not valid JSON ({error.msg}); fix or remove the line.") from error
    except (KeyError, TypeError) as error:
        raise BadInput(
            f'{place}: not a chat; a line must be {{"messages": [{{"role": …, "content": …}}, …]}}.'
        ) from error
    if not roles or roles[-1] != "assistant" or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{place}: a chat must be texts that end with the assistant's turn; its roles are {roles}.")
    return messages
