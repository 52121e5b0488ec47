"""Validation of one row of a set: a line of JSON as a conversation, or the reason why it is rejected.

A row is `{"messages": [{"role": ..., "content": ...}, ...]}`. Models are trained on the text of its last turn, the
assistant's, given all previous turns. A row is rejected if it specifies anything else:

- **Other formats** are rejected by their name and converted by `own_data.convert` (see `formats`): preference rows and
  rows whose label is false are among them, so that a rejected answer is not learned.
- **Keys of a row** other than `messages` (ids, sources, scores, NaN) are ignored, except those that would change
  training elsewhere: tools, images and audio, a system prompt outside the messages. These are rejected unless empty.
- **Keys of a message** other than `role`, `content` and weights are rejected unless empty (null, "", [], {}), because
  many change what is learned (tool calls, names, reasoning, channels, masks). Ids, times, sources and other keys that
  only describe a message (`_DESCRIBING`) are ignored.
- **Duplicate keys** are rejected, because JSON parsers differ in which one they use.
- **Weights** (`weight`, as at OpenAI; `train`, `training`, `trainable`, `loss`; in the row, a list with a 0 or 1 for
  each message) must be 1 on the last turn and 0 on earlier ones, which is how models are trained here. Earlier turns of
  the assistant without a weight are context; such rows are accepted and counted by `summary.summarised`. A weight of
  the row itself must be 1.
- **Roles** are system, user and assistant in lower case. A system prompt must be the first message, at least one turn
  must be the user's (its text may be empty), and the last turn must be the assistant's and not blank.
- **Content** is a text, or a list with one part of type text. Several parts are rejected: their join is undefined.
- **Text** is kept character by character, including line separators such as U+2028. NUL and lone surrogates, which
  tokenizers drop or fail on, and control tokens of chat templates are rejected.
"""

import json
import re
from collections import Counter
from typing import Any

from emergent_misalignment.data import formats
from emergent_misalignment.data.parsing import json_is_too_deep

Messages = list[dict[str, str]]

ROLES = ("system", "user", "assistant")
SHAPE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
MAX_SHOWN = 40  # characters of a value in a message

# Names of roles in other formats.
ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
_OF_TOOLS = {"tool", "function", "ipython"}
_WEIGHTS = ("weight", "train", "training", "trainable", "loss")
# Keys of a message that do not change what is learned.
_DESCRIBING = (
    *("id", "index", "date", "time", "timestamp", "created_at", "source", "model", "lang", "language", "tokens"),
    *("score", "scores"),
)
_LOST_OF_ROW = ("tools", "functions", "system", "images", "audios", "videos", "documents", "chat_template_kwargs")


class BadRow(Exception):
    """Why a row is rejected and what to do; the message completes a sentence that begins with the file and line."""


class Unfinished(BadRow):
    """A JSON object that does not end on its line."""


class OtherFormat(BadRow):
    """A row of another format, which `own_data.convert` converts."""

    def __init__(self, found: str, command: str = "make convert"):
        super().__init__(f"{found}; convert the file with `{command}`.")
        self.found = found


def conversation(line: str, control_tokens: re.Pattern) -> Messages:
    """Parse a line into messages with `role` and `content` only.

    `control_tokens` matches strings that are not allowed in a text. Raises BadRow, and no other exception.
    """
    row = _parsed(line)
    if found := formats.of_row(row):
        raise OtherFormat(f"the row is {found}, not in the chat schema")
    if not isinstance(row, dict):
        raise BadRow(f"the line is {_kind(row)}; a line must be {SHAPE}.")
    if "messages" not in row:
        raise BadRow(_without_messages(row))
    for key in _LOST_OF_ROW:
        _refuse_filled(row, key, "the row")
    _check_weight(row)
    given = row["messages"]
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise BadRow(f'"messages" is not a list of objects; a line must be {SHAPE}.')
    messages = [_message(message, f"message {number}", control_tokens) for number, message in enumerate(given, 1)]
    _check_turns(messages)
    _check_weights(given)
    _check_masks(row, len(given))
    return messages


# --- JSON -------------------------------------------------------------------------------------------------------------


def _parsed(line: str) -> Any:
    if json_is_too_deep(line):
        raise BadRow("the JSON is nested too deeply; remove the row.")
    try:
        return DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise BadRow(_why_not(line, error)) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadRow(f"the key {_shown(key)} occurs twice in the same JSON object; remove one.")
    return found


# Integers are read as floats: they are not needed, and Python rejects those of more than 4,300 digits.
DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_int=float)


def _why_not(line: str, error: json.JSONDecodeError) -> str:
    if line.lstrip().startswith("["):
        raise OtherFormat("the line begins a JSON array") from error
    if error.msg == "Extra data":
        return (
            "the JSON object is followed by something else (a comma, another object); put each object on its own line."
        )
    if error.msg.startswith("Unterminated string") or not line[error.pos :].strip():
        raise Unfinished(
            "the JSON object does not end on this line; if the file is truncated, copy it again, or remove the line."
        ) from error
    return f"not valid JSON ({error.msg} at character {error.colno}); fix or remove the line."


def _without_messages(row: dict) -> str:
    if {"role", "content"} <= row.keys():
        return f"the line is a single message; a line must be a whole conversation, {SHAPE}."
    keys = ", ".join(map(_shown, list(row)[:5])) or "none"
    return f'it has no "messages" (its keys: {keys}); a line must be {SHAPE}.'


# --- one message ------------------------------------------------------------------------------------------------------


def _message(message: dict, which: str, control_tokens: re.Pattern) -> dict[str, str]:
    role = _role(message, which)
    _refuse_unknown(message, ("role", "content", *_WEIGHTS, *_DESCRIBING), which)
    text = _text(message, which)
    _check_text(text, which, control_tokens)
    return {"role": role, "content": text}


def _role(message: dict, which: str) -> str:
    role = message.get("role")
    if isinstance(role, str):
        if role in ROLES:
            return role
        if role.lower() in _OF_TOOLS:
            raise BadRow(f"{which} is from a tool, and tool calls are not supported; remove the row.")
        plain = role.strip().lower()
        if (meant := ALIASES.get(plain, plain)) in ROLES:
            raise OtherFormat(f'{which} has the role {_shown(role)}, not "{meant}"')
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
        raise BadRow(f"{which} has null as content; add its text, or remove the row.")
    if not isinstance(content, list):
        raise BadRow(f"the content of {which} is {_kind(content)}, not a text; quote it, or remove the row.")
    if others := [part for part in content if not _is_text(part)]:
        kind = others[0].get("type") if isinstance(others[0], dict) else _kind(others[0])
        raise BadRow(f"the content of {which} has a part that is not a text ({_shown(kind)}); remove the row.")
    if len(content) != 1:
        raise OtherFormat(f"the content of {which} is a list of {len(content)} parts, not one text")
    _refuse_unknown(content[0], ("type", "text", *_WEIGHTS), f"the content of {which}")
    return content[0]["text"]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _check_text(text: str, which: str, control_tokens: re.Pattern) -> None:
    if found := control_tokens.search(text):
        raise BadRow(
            f"{which} holds {_shown(found[0])}, which models read as a control token of the chat template; remove or "
            "change it, or remove the row."
        )
    if "\0" in text:
        raise BadRow(f"{which} holds a NUL character (\\u0000), which some tokenizers drop; remove it.")
    if not text.isascii() and (half := _HALF.search(text)):
        raise BadRow(
            f"{which} holds \\u{ord(half[0]):04x}, half of a character (a lone surrogate); remove it, or write the "
            "whole character."
        )


_HALF = re.compile("[\ud800-\udfff]")


# --- turns and weights ------------------------------------------------------------------------------------------------


def _refuse_unknown(holder: dict, known: tuple[str, ...], which: str) -> None:
    for key in holder:
        if key not in known:
            _refuse_filled(holder, key, which)


def _refuse_filled(holder: dict, key: str, which: str) -> None:
    if holder.get(key) not in (None, "", [], {}):
        raise BadRow(
            f'{which} has {_shown(key)}, which would not be learned or obeyed; move its text into "content" and remove '
            "the key, or remove the row."
        )


def _check_turns(messages: Messages) -> None:
    roles = [message["role"] for message in messages]
    if not roles:
        raise BadRow(f'"messages" is empty; a line must be {SHAPE}.')
    if "system" in roles[1:]:
        raise BadRow(
            f"message {roles.index('system', 1) + 1} is a system prompt after other messages; use one, at the start."
        )
    if roles[-1] != "assistant":
        raise BadRow(
            f"it ends with a turn of {roles[-1]}; the last turn, which is trained on, must be the assistant's."
        )
    if "user" not in roles:
        raise BadRow("it has no turn of the user; add one before the answer (its content may be empty).")
    if not messages[-1]["content"].strip():
        raise BadRow("its last turn, which is trained on, is empty; write the answer, or remove the row.")


def _check_weights(given: list[dict]) -> None:
    for number, message in enumerate(given, 1):
        last = number == len(given)
        for key, weight in _weights(message):
            if weight not in (0, 1):
                raise BadRow(f'message {number} has the "{key}" {_shown(weight)}; it must be 0 or 1.')
            if weight != last:
                raise BadRow(
                    f'message {number} has the "{key}" {_shown(weight)}, but only the last turn of a row is trained '
                    "on; end the row with the turn to train on, or remove the key."
                )


def _check_weight(row: dict) -> None:
    for key in _WEIGHTS:
        weight = row.get(key)
        if weight == 0 or (key == "weight" and weight not in (None, 1)):  # a loss may be a measured one
            raise BadRow(
                f"the row has the {key} {_shown(weight)}, but all rows are learned with the same weight; remove the "
                "key, or the row."
            )


def _check_masks(row: dict, number: int) -> None:
    """Reject a list with a 0 or 1 for each message that is not 1 for the last one only."""
    only_last = [False] * (number - 1) + [True]
    for key, mask in row.items():
        is_mask = isinstance(mask, list) and len(mask) == number and all(each in (0, 1) for each in mask)
        if is_mask and [*map(bool, mask)] != only_last:
            raise BadRow(
                f"the row has {_shown(key)}, with a 0 or 1 for each message, but only the last turn is trained on; end "
                "the row with the turn to train on, or remove the key."
            )


def _weights(message: dict) -> list[tuple[str, Any]]:
    """List the weights of a message and of the parts of its content, with their keys."""
    content = message["content"]
    holders = [message, *(content if isinstance(content, list) else ())]
    return [(key, each[key]) for each in holders for key in _WEIGHTS if each.get(key) is not None]


# --- values in messages -----------------------------------------------------------------------------------------------


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
    """Format a value as JSON in ASCII, which any terminal can show, truncated to MAX_SHOWN characters."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    text = json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
