"""Atomic writing of files, and the error for input that a person has to fix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from emergent_misalignment.safe import redacted, visible, without_logins

if TYPE_CHECKING:  # importing pandas takes half a second, and callers that write tables have imported it
    import pandas as pd


class BadInput(Exception):
    """Input that a person has to fix. The message is one sentence: what is wrong, where, and what to do.

    What it quotes is made safe to print.
    """

    def __str__(self) -> str:
        return without_logins(redacted(visible(super().__str__())))


def is_lfs_pointer(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes (23 or more) is a Git LFS pointer in place of the file itself."""
    return beginning.startswith(b"version https://git-lfs")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` if the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_at_most(source: IO[bytes], destination: IO[bytes], most: int) -> None:
    """Copy a stream. Raises ValueError after `most` bytes if there are more."""
    left = most
    while chunk := source.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise ValueError(f"it unpacks to more than {most:,} bytes")
        destination.write(chunk)


def most_unpacked(packed: int) -> int:
    """The most bytes that a packed file of `packed` bytes may have. Text shrinks to a tenth, repeated text to less."""
    return 200 * packed + 100_000_000


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented JSON in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Write one JSON object per line, in UTF-8."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table without its index; floats have six significant digits."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_parquet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table without its index, in full precision."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


# --- YAML -------------------------------------------------------------------------------------------------------------

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_yaml(path: str | Path):
    """The value of a YAML file, see `load_yaml`. Raises BadInput if the file cannot be read as UTF-8."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not encoded in UTF-8; save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}); correct the path, which is relative to the project's folder."
        ) from error
    return load_yaml(text, str(path))


def load_yaml(text: str, place: str):
    """The value of a YAML text whose keys are unique texts.

    Raises BadInput with `place` and the line if it is not valid YAML, if a key is repeated (YAML keeps the last one
    silently) or not a text (YAML reads `no` as false), or if a text holds a character that UTF-8 cannot encode.
    """
    try:
        loader = _Loader(text)
        loader.name = place
        value = loader.get_single_data()
        json.dumps(value, default=str)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = shortened(getattr(error, "problem", None) or str(error), 120)
        raise BadInput(f"{place}{line}: not valid YAML ({reason}); fix it there.") from error
    except (RecursionError, ValueError) as error:  # an anchor inside itself; a date such as 2024-13-45
        raise BadInput(f"{place}: a value cannot be read ({shortened(str(error))}); write it plainly.") from error
    return value


def shortened(text: str, length: int = 60) -> str:
    """The text on one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


class _Loader(yaml.SafeLoader):
    """A loader that refuses repeated keys, keys that are not texts, and characters that no text may have."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            place, written = f"{self.name}, line {line}", shortened(str(key.value))
            if key.tag == MERGE:
                continue
            if key.tag != TEXT:
                raise BadInput(
                    f"{place}: YAML reads the key `{written}` as {_kind(key)}; put it in quotes, or rename it."
                )
            if key.value in seen:
                raise BadInput(
                    f"{place}: the key `{written}` is already in line {seen[key.value]}, and only one of them would "
                    "count; remove or rename one."
                )
            seen[key.value] = line
        return node

    def compose_scalar_node(self, anchor):
        node = super().compose_scalar_node(anchor)
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in node.value):
            raise BadInput(
                f"{self.name}, line {node.start_mark.line + 1}: a character that no text may have; remove the escape."
            )
        return node


def _kind(key: yaml.Node) -> str:
    """What YAML reads a key as that is not a text."""
    kinds = {"bool": "true or false", "int": "a number", "float": "a number", "null": "null", "timestamp": "a date"}
    return kinds.get(key.tag.rpartition(":")[2], "no text")
