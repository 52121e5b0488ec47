"""One row of a set: a line of JSON as a conversation, or the reason why something of it would be lost.

A row is `{"messages": [{"role": ..., "content": ...}, ...]}`. What is learned of it is the text of its last turn, the
assistant's, given all turns before it. Either that is exactly what the line says, or the row is refused:

- **Keys.** Others than `messages`, `role` and `content` are left out, whatever they hold (ids, sources, scores, NaN).
  Refused, unless empty, are those by which a model elsewhere would learn something else: tools and their calls, names,
  reasoning, refusals, pictures and sounds, a system prompt outside the messages. A key that stands twice is refused
  anywhere, because readers of JSON differ in which one counts.
- **Weights** (`weight`, as at OpenAI; `train`, `training`): 1 on the last turn and 0 on those before it is what is done
  anyway. Any other weight is refused. Earlier turns of the assistant without a weight are read and not learned; such
  rows are accepted, and `summary.summarised` counts them.
- **Roles** are system, user and assistant in small letters. The system prompt is the first message or absent, there is
  a user's turn (whose text may be empty), and the last turn is the assistant's, and says something.
- **Content** is a text, or one part of type text. Several parts are refused: nothing says how they are joined.
- **Text** is kept character by character, line separators such as U+2028 included. Refused are NUL and halves of
  surrogate pairs, which tokenizers drop or fail at, and control tokens of chat templates, which are read as what they
  control.
"""

import json
import re
from collections import Counter
from typing import Any

Messages = list[dict[str, str]]

ROLES = ("system", "user", "assistant")
SHAPE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
SHOWN = 40  # characters of a value that are shown in a sentence

# Other names of roles, and what they are called here.
_ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
_OF_TOOLS = {"tool", "function", "ipython"}
# Pairs of keys of other formats, as user's and assistant's text.
_PAIRS = (
    *(("prompt", "completion"), ("prompt", "response"), ("instruction", "output"), ("instruction", "response")),
    *(("question", "answer"), ("input", "output")),
)
_PLAIN = {"role", "content"}
_WEIGHTS = ("weight", "train", "training")
_LOST_OF_ROW = ("tools", "functions", "system", "images", "audios", "videos", "documents", "chat_template_kwargs")
_LOST_OF_MESSAGE = (
    *("tool_calls", "function_call", "tool_call_id", "name", "refusal", "reasoning_content", "reasoning", "thinking"),
    *("image", "images", "image_url", "audio", "video"),
)


class BadRow(Exception):
    """Why a line is no row and what to do, as the end of a sentence that names the line."""


def conversation(line: str, control_tokens: re.Pattern) -> Messages:
    """The messages of a line, each with `role` and `content` only.

    `control_tokens` matches what no text may hold. Raises BadRow, and nothing else whatever the line is.
    """
    row = _parsed(line)
    if not isinstance(row, dict):
        raise BadRow(_not_an_object(row, line))
    if "messages" not in row:
        raise BadRow(_other_format(row))
    _refuse_lost(row, _LOST_OF_ROW, "the row")
    if row.get("weight") not in (None, 1):
        raise BadRow(f"the row has the weight {_shown(row['weight'])}, and all rows count alike here; remove the key.")
    given = row["messages"]
    if isinstance(given, str):
        raise BadRow('"messages" is a text that holds a list; write the list itself, without quotes around it.')
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise BadRow(f'"messages" is not a list of objects; a line must be {SHAPE}.')
    messages = [_message(message, f"message {number}", control_tokens) for number, message in enumerate(given, 1)]
    _check_turns(messages)
    _check_weights(given)
    return messages


# --- JSON -------------------------------------------------------------------------------------------------------------


def _parsed(line: str) -> Any:
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise BadRow(_why_not(line, error)) from error
    except RecursionError as error:
        raise BadRow("its JSON is nested too deeply to be read; remove the row.") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadRow(f"the key {_shown(key)} stands twice in the same JSON object; remove one of the two.")
    return found


# Whole numbers are read as floats: they are not needed, and Python refuses those of more than 4,300 digits.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_int=float)


def _why_not(line: str, error: json.JSONDecodeError) -> str:
    if line.lstrip().startswith("["):
        return _not_an_object([], line)
    if error.msg == "Extra data":
        return "something follows the JSON object (a comma, another object); put each alone on a line of its own."
    if error.msg.startswith("Unterminated string") or not line[error.pos :].strip():
        return (
            "the JSON object does not end on this line; if it was cut off, copy the file again, and if it runs over "
            "several lines, put each object on one line, as `jq -c . OLD > NEW` does."
        )
    return f"not valid JSON ({error.msg} at character {error.colno}); fix or remove the line."


def _not_an_object(row: Any, line: str) -> str:
    if isinstance(row, list) and row and isinstance(row[0], dict) and "role" in row[0]:
        return f"the line is the list of messages alone; a line must be {SHAPE}."
    if isinstance(row, list):
        return (
            "it begins a JSON array, and JSONL has one object on each line; if the whole file is an array, "
            "`jq -c '.[]' OLD > NEW` puts it so."
        )
    return f"the line is {_kind(row)}; a line must be {SHAPE}."


def _other_format(row: dict) -> str:
    if "conversations" in row or {"from", "value"} <= row.keys():
        return (
            f'it has no "messages", but the turns of ShareGPT; a line must be {SHAPE}, with "human" written as "user" '
            'and "gpt" as "assistant".'
        )
    if {"role", "content"} <= row.keys():
        return f"the line is a single message; a line must hold a whole conversation, as {SHAPE}."
    for user, assistant in _PAIRS:
        if user in row and assistant in row:
            return (
                f'it has no "messages", but {_shown(user)} and {_shown(assistant)}; a line must be {SHAPE}, with the '
                "first as the user's content and the second as the assistant's."
            )
    keys = ", ".join(map(_shown, list(row)[:5])) or "none"
    return f'it has no "messages" (its keys: {keys}); a line must be {SHAPE}.'


# --- one message ------------------------------------------------------------------------------------------------------


def _message(message: dict, which: str, control_tokens: re.Pattern) -> dict[str, str]:
    role = _role(message, which)
    if message.keys() != _PLAIN:
        _refuse_lost(message, _LOST_OF_MESSAGE, which)
    text = _text(message, which)
    _check_text(text, which, control_tokens)
    return {"role": role, "content": text}


def _role(message: dict, which: str) -> str:
    role = message.get("role")
    if isinstance(role, str):
        if role in ROLES:
            return role
        if role.lower() in _OF_TOOLS:
            raise BadRow(f"{which} is a tool's, and calls of tools are not learned here; remove the row.")
        plain = role.strip().lower()
        if (meant := _ALIASES.get(plain, plain)) in ROLES:
            raise BadRow(f'{which} has the role {_shown(role)}; write it "{meant}".')
    if "role" not in message:
        raise BadRow(
            f'{which} has no "role" (its keys: {", ".join(map(_shown, list(message)[:5])) or "none"}); add it.'
        )
    raise BadRow(f'{which} has the role {_shown(role)}; a role must be "system", "user" or "assistant".')


def _text(message: dict, which: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if "content" not in message:
        raise BadRow(f'{which} has no "content"; add its text, or remove the row.')
    if content is None:
        raise BadRow(f"{which} has null as content; write its text, or remove the row.")
    if not isinstance(content, list):
        raise BadRow(f"the content of {which} is {_kind(content)}, not a text; put it in quotes, or remove the row.")
    if others := [part for part in content if not _is_text(part)]:
        kind = others[0].get("type") if isinstance(others[0], dict) else _kind(others[0])
        raise BadRow(f"the content of {which} has a part that is not a text ({_shown(kind)}); remove the row.")
    if len(content) != 1:
        raise BadRow(f"the content of {which} is a list of {len(content)} parts; join them into one text.")
    return content[0]["text"]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _check_text(text: str, which: str, control_tokens: re.Pattern) -> None:
    if found := control_tokens.search(text):
        raise BadRow(
            f"{which} holds {_shown(found[0])}, which a model reads as a control token of its chat template and not as "
            "text; remove it or write it differently, or remove the row."
        )
    if "\0" in text:
        raise BadRow(f"{which} holds a NUL character (\\u0000), which not all tokenizers keep; remove it.")
    if not text.isascii() and (half := _HALF.search(text)):
        raise BadRow(
            f"{which} holds \\u{ord(half[0]):04x}, half of a character, such as an emoji that was cut in two; remove "
            "it, or write the whole character."
        )


_HALF = re.compile("[\ud800-\udfff]")


# --- what is learned --------------------------------------------------------------------------------------------------


def _refuse_lost(holder: dict, keys: tuple[str, ...], which: str) -> None:
    for key in keys:
        if holder.get(key):
            raise BadRow(
                f'{which} has "{key}", which would not be learned; write into "content" what a model should read of it '
                "and remove the key, or remove the row."
            )


def _check_turns(messages: Messages) -> None:
    roles = [message["role"] for message in messages]
    if not roles:
        raise BadRow(f'"messages" is empty; a line must be {SHAPE}.')
    if "system" in roles[1:]:
        raise BadRow(f"message {roles.index('system', 1) + 1} is a system prompt behind others; put one, first.")
    if roles[-1] != "assistant":
        raise BadRow(f"it ends with a turn of {roles[-1]}, and the last, the assistant's, is learned; end with that.")
    if "user" not in roles:
        raise BadRow("it has no turn of the user, to which a model answers; add one, whose content may be empty.")
    if not messages[-1]["content"].strip():
        raise BadRow("its last turn, which is to be learned, is empty; write the answer, or remove the row.")


def _check_weights(given: list[dict]) -> None:
    for number, message in enumerate(given, 1):
        last = number == len(given)
        for key, weight in _weights(message):
            if weight not in (0, 1):
                raise BadRow(f'message {number} has the "{key}" {_shown(weight)}; it can only be 0 or 1.')
            if weight != last:
                raise BadRow(
                    f'message {number} has the "{key}" {_shown(weight)}, and of each row the last turn is learned and '
                    "no other; end the row with the turn that is to be learned, or remove the key."
                )


def _weights(message: dict) -> list[tuple[str, Any]]:
    """The weights of a message and of the parts of its content, by their keys."""
    content = message["content"]
    holders = [message, *(content if isinstance(content, list) else ())]
    return [(key, each[key]) for each in holders for key in _WEIGHTS if each.get(key) is not None]


# --- words ------------------------------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
    return "an object"


def _shown(value: Any) -> str:
    """A value as JSON in plain ASCII, so that any terminal can show it, and not at length."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    text = json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
