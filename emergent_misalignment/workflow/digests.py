"""Digests of what stages have written, so that no stage reads a file that was damaged afterwards.

Each output has a record in `.snakemake/digests/`: length and SHA-256 of every file that belongs to it, by path. The job
that made the output writes it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from emergent_misalignment.files import BadInput, write_json

FOLDER = Path(".snakemake/digests")
COMPUTED = ("data/", "figures/", "paper/")  # folders of computed files; released organisms have a manifest instead
# People open and save executed notebooks, and no stage takes a number from one. So a changed one stops no job.
NOTEBOOK = ".ipynb"


@contextmanager
def checked(job: Any) -> Iterator[None]:
    """Check the inputs of a job before it reads them, and record its outputs if it succeeds.

    Raises BadInput if an input is not as its stage wrote it. Inputs without a record, such as sources, are not checked.
    """
    for path in filter(_is_computed, job.input):
        if not path.endswith(NOTEBOOK) and (file := damaged(path)):
            raise BadInput(
                f"{file} is not as its stage wrote it; remove {path} and run the same command again, which restores it."
            )
    outputs = [*filter(_is_computed, job.output)]
    for path in outputs:
        _record(path).unlink(missing_ok=True)
    yield
    digest = cache(_digest)
    for path in outputs:
        write_json(_record(path), {file: digest(file) for file in _belonging(job, path) if Path(file).is_file()})


def damaged(path: str) -> str:
    """The first file of an output that is not as it was written; "" if all are, or if there is no output or no record.

    A record that cannot be read is one of a damaged output.
    """
    record = _record(path)
    if not (Path(path).is_file() and record.is_file()):
        return ""
    try:
        files = json.loads(record.read_text(encoding="utf-8"))
        return next((file for file, written in files.items() if _differs(file, *written)), "")
    except (ValueError, TypeError, AttributeError):
        return path


def recorded(study: str) -> list[str]:
    """The outputs of a study that have a record."""
    records = [path for folder in COMPUTED for path in (FOLDER / folder / study).rglob("*")]
    return sorted(str(path.relative_to(FOLDER)) for path in records if path.is_file())


def _is_computed(path: str) -> bool:
    """Whether the file is a stage's, and not a source or a user's file, which may be anywhere."""
    return path.startswith(COMPUTED)


def _record(path: str) -> Path:
    return FOLDER / path


def _differs(file: str, length: int, sha256: str) -> bool:
    return not os.path.isfile(file) or os.path.getsize(file) != length or _digest(file)[1] != sha256


def _digest(file: str) -> tuple[int, str]:
    with open(file, "rb") as opened:
        return os.path.getsize(file), hashlib.file_digest(opened, "sha256").hexdigest()


def _belonging(job: Any, path: str) -> list[str]:
    """The files of an output: of weights also the other outputs in their folder, of a batch also the trained models."""
    if path.endswith(".safetensors"):
        return [each for each in job.output if os.path.dirname(each) == os.path.dirname(path)]
    if path == job.output.get("trainings"):
        trained = [
            Path(job.params.models, condition, f"seed-{seed}")
            for condition, plan in job.params.conditions.items()
            for seed in plan["seeds"]
        ]
        return [path, *(str(file) for folder in trained for file in sorted(folder.rglob("*")))]
    return [path]
