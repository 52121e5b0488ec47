"""Convert a set of another format to the published chat schema: `make convert DATA=my.csv`.

    python -m emergent_misalignment.own_data.convert my.csv my-chats.jsonl

`sources` lists the formats of files. Rows may be

- conversations, also with the roles of ShareGPT, with contents of several parts (joined without a separator), or as a
  text of JSON in a table;
- a question and its answer (`formats.QUESTIONS`, `formats.ANSWERS`); a second part of the question, as in Alpaca
  (`formats.CONTEXTS`), follows after an empty line;
- preferences, of which the chosen answer is written, and answers with a label, which are written if it is true.

Everything that is left out is counted and printed. Each row that is written passes the checks of `data.rows`.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emergent_misalignment.data import formats
from emergent_misalignment.data.chats import SHOWN_LINES, chat, listed
from emergent_misalignment.data.control_tokens import pattern
from emergent_misalignment.data.rows import ALIASES, DECODER, BadRow, Messages, conversation
from emergent_misalignment.files import BadInput, shortened, write_jsonl
from emergent_misalignment.own_data.sets import given
from emergent_misalignment.own_data.sources import read
from emergent_misalignment.safe import visible

SYSTEM = ("system", "system_prompt", "system_instruction", "systeminstruction")
PREFERENCE = "rejected answers of preferences"
LABEL = "rows whose label is false"
INVALID = "rows that cannot be learned as written"


class LeftOut(Exception):
    """A row that is not written; the message is the reason under which it is counted."""


class Conversion:
    """The rows of a file in the chat schema, with counts of what is left out.

    Attributes
    ----------
    written : int
        Rows so far.
    left_out : Counter
        What is left out, by the reason.
    columns : Counter
        Rows that had a column which is not in the chat schema.
    first : list of str
        The first rows that cannot be learned as written, with the reasons.
    """

    def __init__(self):
        self.written = 0
        self.left_out: Counter[str] = Counter()
        self.columns: Counter[str] = Counter()
        self.first: list[str] = []

    def rows(self, path: str | Path) -> Iterator[dict[str, Messages]]:
        """Iterate over the rows of a file. Raises BadInput if it cannot be read, or if no row can be written."""
        control_tokens = pattern()
        for place, row in read(path):
            try:
                converted, extra = self._in_schema(row)
                messages = conversation(json.dumps(converted, default=lambda value: None), control_tokens)
            except LeftOut as reason:
                self.left_out[str(reason)] += 1
                continue
            except BadRow as error:
                self.left_out[INVALID] += 1
                if len(self.first) < SHOWN_LINES:
                    self.first.append(f"{place}: {error}")
                continue
            self.columns.update(extra)
            self.written += 1
            yield {"messages": messages}
        if not self.written:
            raise BadInput(self._nothing(path))

    def _nothing(self, path: str | Path) -> str:
        if self.first:
            return listed(path, self.first, self.left_out[INVALID])
        reasons = "; ".join(f"{reason}: {number:,}" for reason, number in self.left_out.items())
        return f"{path} has no rows to write{f' ({reasons})' if reasons else ''}; give another file."

    def _in_schema(self, row: Any) -> tuple[dict, list[str]]:
        """A row with `messages`, and the names of its columns that are not in the chat schema.

        All keys of the row that are not converted are kept, because some of them are reasons to reject it.
        """
        row = _keys({"messages": row} if isinstance(row, list) else row)
        if "conversations" in row or any(formats.is_turn(value, "from") for value in row.values()):
            from trl import maybe_convert_to_chatml  # which takes seconds

            row = maybe_convert_to_chatml(row)
        if _take(row, formats.REJECTED) is not None:
            self.left_out[PREFERENCE] += 1
            if not any(key in row for key in formats.CHOSEN):
                raise BadRow("it has a rejected answer and no chosen one; add it, or remove the row.")
        system, label = _take(row, SYSTEM), _label(row)
        if label is False:
            raise LeftOut(LABEL)
        messages = _turns(row)
        if system is not None:
            messages = [*_as_messages(system, "system"), *messages]
        return {"messages": messages, **row}, [*row]

    def report(self, source: str | Path, destination: str | Path) -> str:
        """What was written and what was left out, as a text."""
        lines = [f"{destination}: {_rows(self.written)} in the chat schema, from {source}"]
        lines += [f"  left out: {reason}: {number:,}" for reason, number in self.left_out.items()]
        lines += [f"    {each}" for each in self.first]
        if self.columns:
            lines += ["  columns left out: " + ", ".join(f"{name} ({rows:,})" for name, rows in self.columns.items())]
        return "\n".join(lines)


def _rows(number: int) -> str:
    return f"{number:,} row{'s' * (number != 1)}"


# --- one row ----------------------------------------------------------------------------------------------------------


def _keys(row: Any) -> dict:
    """A row without null values, with plain keys, and with lists and objects in place of texts of JSON."""
    if not isinstance(row, dict):
        raise BadRow("the row is not an object; remove it.")
    plain = {key.strip().lower(): _decoded(value) for key, value in row.items() if value is not None}
    if len(plain) < sum(value is not None for value in row.values()):
        raise BadRow("two of its keys differ in capitals or blanks only; remove one.")
    for name in (*formats.CHOSEN, *formats.REJECTED, "completion"):
        if isinstance(plain.get(name), dict):  # a single message
            plain[name] = [plain[name]]
    for name in formats.CHATS[2:]:
        if name in plain:
            plain["conversations"] = plain.pop(name)
    return plain


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:2] in ("[{", "[\n", "[ "):
        try:
            return DECODER.decode(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


def _take(row: dict, keys: tuple[str, ...]) -> Any:
    """Remove these keys from a row and return the value, or None. Raises BadRow if several have one."""
    found = {key: value for key in keys if (value := row.pop(key, None)) not in (None, "", [])}
    if len(found) > 1:
        raise BadRow(f"it has {' and '.join(found)}, of which one would be lost; remove one.")
    return next(iter(found.values()), None)


def _label(row: dict) -> bool | None:
    """Whether an answer is labelled as a good one; None without a label. The labels of a chat may mean anything."""
    for key in formats.LABELS:
        if key in row and formats.is_false(row[key]):
            return False
        if key in row and "messages" not in row and str(row.pop(key)).strip().lower() not in ("true", "1", "1.0"):
            raise BadRow(f"its {key} is neither true nor false; rename the column if it does not judge the answer.")
    return None


def _turns(row: dict) -> list:
    """The turns of a row, whose keys are removed from it."""
    messages, chosen = row.pop("messages", None), _take(row, formats.CHOSEN)
    if messages is not None and chosen is None:
        return _as_messages(messages, "user")
    prompt = messages if messages is not None else _prompt(row)
    answer = _as_messages(chosen if chosen is not None else _take(row, formats.ANSWERS), "assistant")
    asked = _as_messages(prompt, "user")
    if any(isinstance(each, dict) and each.get("role") == "user" for each in answer):  # the whole conversation
        if asked not in (answer[: len(asked)], answer[1:2]):  # a system prompt may precede it
            raise BadRow("its answer is a conversation that does not begin with its prompt; remove one of them.")
        return answer
    if not asked or not answer:
        others = shortened(", ".join(row)) or "none"
        raise BadRow(f"it has no question or no answer that is known (other keys: {others}); rename them.")
    return [*asked, *answer]


def _prompt(row: dict) -> Any:
    """What is asked: a text, or the messages of a conversation, after earlier turns in `history`."""
    if isinstance(row.get("input"), dict):  # OpenAI's preferences
        return row.pop("input").get("messages")
    earlier = _earlier(row.pop("history", None) or [])
    question, context = _take(row, formats.QUESTIONS), _take(row, formats.CONTEXTS)
    if question is None or context is None:
        question = context if question is None else question
    elif isinstance(question, str) and isinstance(context, str):
        question = f"{question}\n\n{context}"
    else:
        raise BadRow("it has messages and a second part of the question; remove one.")
    return [*earlier, *_as_messages(question, "user")] if earlier and question is not None else question


def _earlier(history: Any) -> list[dict]:
    """Earlier turns: a list of pairs of a question and its answer."""
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow("its history is not a list of pairs; remove the row.")
    return [turn for user, answer in history for turn in chat([(user, answer)])]


def _as_messages(value: Any, role: str) -> list:
    """A text, a message or a list of messages as messages of the chat schema; `role` is that of a text."""
    if value is None or isinstance(value, str):
        return [] if value is None else [{"role": role, "content": value}]
    return [_message(each, role) for each in (value if isinstance(value, list) else [value])]


def _message(message: Any, role: str) -> Any:
    """A message with the roles and the content of the chat schema; all other keys are kept, to be checked."""
    if not isinstance(message, dict):
        return message
    message = {"role": role, **message} if role == "system" else dict(message)
    if "parts" in message:
        message["content"] = message.pop("parts")
    if isinstance(message.get("role"), str):
        plain = message["role"].strip().lower()
        message["role"] = ALIASES.get(plain, plain)
    content = message.get("content")
    if isinstance(content, list) and content and all(isinstance(_part(part), str) for part in content):
        message["content"] = "".join(map(_part, content))
    return message


def _part(part: Any) -> Any:
    """The text of a part of a content that has a text only; of other parts the part itself."""
    if isinstance(part, dict) and part.keys() <= {"type", "text"} and part.get("type", "text") == "text":
        return part.get("text")
    return part


# --- command line -----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.convert",
        description="Convert a set to the published chat schema.",
    )
    parser.add_argument("source", help="a file, a folder of the package datasets, or -, standard input")
    parser.add_argument("destination", nargs="?", default="", help="a new JSONL file; by default beside the source")
    arguments = parser.parse_args()
    conversion = Conversion()
    try:
        with TemporaryDirectory() as folder:
            source = Path(given(arguments.source, folder))
            beside = Path() if arguments.source == "-" else source.parent
            destination = Path(expanduser(arguments.destination or beside / f"{source.name.split('.')[0]}-chats.jsonl"))
            if destination.exists():
                raise BadInput(
                    f"There is a file {destination} already; remove it, or name another one with TO=NEW.jsonl."
                )
            write_jsonl(destination, conversion.rows(source))
    except BadInput as error:
        sys.exit(str(error))
    print(visible(conversion.report(arguments.source, destination)))


if __name__ == "__main__":
    main()
