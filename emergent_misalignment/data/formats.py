"""Formats of fine-tuning data other than the published chat schema, recognised by the keys of a row.

`own_data.convert` converts them. Here they are only named, so that a file of another format gets one sentence.
"""

import re
import shlex
from pathlib import Path
from typing import Any

QUESTIONS = ("prompt", "instruction", "question", "query")
CONTEXTS = ("input", "context")  # a second part of the question, as in Alpaca and Dolly
ANSWERS = ("completion", "response", "output", "answer")
CHOSEN, REJECTED = ("chosen", "preferred_output"), ("rejected", "non_preferred_output")  # TRL's and OpenAI's names
LABELS = ("label", "kto_tag")  # whether an answer is a good one
CHATS = ("messages", "conversations", "conversation", "contents")
# First bytes of files.
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}
PARQUET, ARROW = b"PAR1", b"\xff\xff\xff\xff"
_SAVED = ("dataset_info.json", "dataset_dict.json")  # in a folder that `save_to_disk` of the package datasets wrote


def command(path: str | Path) -> str:
    """The command that converts a file."""
    return f"make convert DATA={shlex.quote(str(path))}"


def of_row(row: Any) -> str | None:
    """Describe the format of a row that is not in the chat schema but can be converted; None for other rows."""
    if isinstance(row, list):
        return "a list of messages without the object around it" if is_turn(row[:1]) else "a JSON array"
    if not isinstance(row, dict):
        return None
    keys = {_normal(key): value for key, value in row.items() if value is not None}
    if found := _present(keys, (*CHOSEN, *REJECTED)):
        return f"a preference row ({found})"
    if any(key in keys and is_false(keys[key]) for key in LABELS):
        return f"a rejected answer ({_present(keys, LABELS)}, as in KTO)"
    chat = keys.get("messages")
    if isinstance(chat, str):
        return '"messages" is a string that contains a list'
    if is_turn(chat, "from") or _present(keys, CHATS[1:]) or {"from", "value"} <= keys.keys():
        return f"ShareGPT turns or similar ({_present(keys, (*CHATS, 'from', 'value'))})"
    if "messages" in keys or not _present(keys, ANSWERS) or not _present(keys, (*QUESTIONS, *CONTEXTS)):
        return None
    return f"a question and its answer ({_present(keys, (*QUESTIONS, *CONTEXTS, *ANSWERS, *LABELS))})"


def of_beginning(path: str | Path, beginning: bytes) -> str | None:
    """Name the format of a file that is not lines of JSON but can be converted, by its first bytes."""
    if name := next((name for mark, name in COMPRESSED.items() if beginning.startswith(mark)), None):
        return f"compressed ({name})"
    if beginning.startswith((PARQUET, ARROW)):
        return f"{'a Parquet' if beginning.startswith(PARQUET) else 'an Arrow'} file"
    first = beginning.decode("utf-8", "replace").lstrip("\ufeff").lstrip().split("\n")[0]
    return "a table (CSV)" if is_table(path, first) else None


def is_table(path: str | Path, header: str) -> bool:
    """Whether a text file is a table: by the name, or by a header with columns that are known."""
    if header.startswith(("{", "[")):
        return False
    columns = {_normal(cell.strip().strip('"')) for cell in re.split("[,;\t]", header)}
    return Path(path).suffix.lower() in (".csv", ".tsv") or bool(
        columns & {*CHATS, *QUESTIONS, *ANSWERS, *CHOSEN, *REJECTED}
    )


def is_saved_dataset(folder: str | Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the package datasets."""
    return any(Path(folder, name).is_file() for name in _SAVED)


def is_false(label: Any) -> bool:
    return label == 0 or (isinstance(label, str) and label.strip().lower() in ("false", "0"))


def is_turn(turns: Any, key: str = "") -> bool:
    """Whether a list begins with a message, which has the key if one is given."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and (key in first if key else bool({"role", "from"} & first.keys()))


def _present(keys: dict, names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names if name in keys)


def _normal(key: str) -> str:
    return key.strip().lower()
