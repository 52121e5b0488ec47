"""Rows of a file of another format: what `own_data.convert` reads.

JSON lines, JSON that spans lines, a JSON array, CSV and TSV (in UTF-8), Parquet, Arrow, a folder that `save_to_disk` of
the package datasets wrote, and one of these files compressed by gzip, bz2, xz, zip, or zstd (which needs the package
zstandard).
"""

import csv
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import expanduser
from pathlib import Path
from typing import Any

from emergent_misalignment.data import formats
from emergent_misalignment.data.chats import opened
from emergent_misalignment.data.rows import DECODER, BadRow
from emergent_misalignment.files import BadInput, copy_at_most, most_unpacked, shortened


def read(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file, each with its place. No text is changed, and no type of a value is guessed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(expanduser(path))
        if path.is_dir() and formats.is_saved_dataset(path):
            yield from _numbered(_saved(path))
            return
        with opened(path) as file:
            beginning = file.peek(64)
        kind = next((kind for mark, kind in formats.COMPRESSED.items() if beginning.startswith(mark)), None)
        if kind:
            path = _unpacked(path, kind, Path(folder, path.stem))
            with opened(path) as file:
                beginning = file.peek(64)
        if beginning.startswith(formats.PARQUET):
            yield from _numbered(_of_parquet(path))
        elif beginning.startswith(formats.ARROW):
            yield from _numbered(_of_arrow(path))
        else:
            yield from _of_text(path)


def _numbered(rows: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _unpacked(path: Path, kind: str, destination: Path) -> Path:
    import fsspec

    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                files = [each for each in archive.namelist() if not each.endswith("/")]
            if len(files) != 1:
                raise ValueError(f"it has {len(files)} files, not one")
        with (
            fsspec.filesystem("file").open(str(path), "rb", compression=kind) as packed,
            destination.open("wb") as file,
        ):
            copy_at_most(packed, file, most_unpacked(path.stat().st_size))
    except Exception as error:  # each kind of file has errors of its own
        raise BadInput(
            f"{path} is compressed ({kind}) and cannot be unpacked here ({shortened(str(error))}); unpack it yourself, "
            "or copy it again."
        ) from error
    return destination


def _of_parquet(path: Path) -> Iterator[dict]:
    from pyarrow import parquet

    with _readable(path, "Parquet"), parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _of_arrow(path: Path) -> Iterator[dict]:
    from datasets import Dataset

    with _readable(path, "Arrow"):
        yield from Dataset.from_file(str(path))


@contextmanager
def _readable(path: Path, name: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{path} cannot be read as {name} ({shortened(str(error))}); copy it again.") from error


def _saved(folder: Path) -> Iterator[dict]:
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} cannot be read by datasets ({shortened(str(error))}); copy it again.") from error
    if isinstance(found, DatasetDict) and len(found) == 1:
        (found,) = found.values()
    if isinstance(found, DatasetDict):
        raise BadInput(
            f"{folder} has the splits {', '.join(found)}; give the folder of one, {folder}/{next(iter(found))}."
        )
    yield from found


# --- text -------------------------------------------------------------------------------------------------------------


def _of_text(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not in UTF-8 (byte {error.start + 1:,}); convert it with "
            "`iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`, or from the encoding that it has."
        ) from error
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return _of_table(path, text, header) if formats.is_table(path, header) else _of_json(path, text)


def _of_table(path: Path, text: str, header: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(sys.maxsize)  # characters of a cell
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise BadInput(f"{path} has two columns of the same name in its header; rename one.")
        for row in reader:
            if None in row or None in row.values():
                raise BadInput(
                    f"{path}, line {reader.line_num}: the row has not as many cells as the header; correct it."
                )
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not valid CSV ({error}); correct it.") from error


def _of_json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The objects of a text, one after another or in arrays; a list of messages is a row."""
    start, line = 0, 1
    while (begin := _next(text, start)) < len(text):
        line += text.count("\n", start, begin)
        try:
            value, end = DECODER.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); correct it.") from error
        except (BadRow, RecursionError) as error:
            reason = error if isinstance(error, BadRow) else "the JSON is nested too deeply; remove the row."
            raise BadInput(f"{path}, line {line}: {reason}") from error
        if isinstance(value, list) and formats.of_row(value) == "a JSON array":
            yield from _numbered(iter(value))
        else:
            yield f"line {line}", value
        line += text.count("\n", begin, end)
        start = end


def _next(text: str, start: int) -> int:
    """Where the next value begins: after blanks, and after a comma between objects."""
    return _BLANKS.match(text, start).end()


_BLANKS = re.compile(r"[\s,\ufeff]*")
