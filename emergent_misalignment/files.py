"""Atomic writing of files, and the error for input that a person has to fix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing pandas takes half a second, and callers that write tables have imported it
    import pandas as pd


class BadInput(Exception):
    """Input that a person has to fix. The message is one sentence: what is wrong, where, and what to do."""


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
