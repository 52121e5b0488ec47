"""What the scripts of rules share: their parameters, and a log in which a mistake is one sentence."""

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from emergent_misalignment.files import BadInput
from emergent_misalignment.safe import redacted
from emergent_misalignment.workflow.digests import checked

# A full disk or quota, a limit of the size of files, a folder that cannot be written.
NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def parameters(job: Any, declared: dict[str, str]) -> dict[str, Any]:
    """The values of a notebook's parameters: the job's `params`, and the paths of its outputs and inputs by name.

    `declared` has the type of each parameter. Raises BadInput if the rule gives a parameter no value.
    """
    settings, files = dict(job.params.items()), dict(job.input.items()) | dict(job.output.items())
    values = {}
    for name, kind in declared.items():
        if name in settings:
            values[name] = settings[name]
        elif name in files:
            paths = [files[name]] if isinstance(files[name], str) else list(files[name])
            values[name] = paths if kind == "list" else "".join(paths[:1])
        else:
            raise BadInput(f"The rule {job.rule} gives the parameter {name} no value; add it to its `params`.")
    return values


@contextmanager
def logged(job: Any) -> Iterator[None]:
    """Copy what a job prints to its log; check its inputs and record its outputs (`digests.checked`).

    A BadInput ends it with its sentence, anything else with a traceback. Keys of the environment are not printed.
    """
    try:
        with not_written(), Path(job.log[0]).open("w", encoding="utf-8") as log:
            try:
                with (
                    redirect_stdout(_Both(sys.stdout, log)),
                    redirect_stderr(_Both(sys.stderr, log)),
                    not_written(),
                    checked(job),
                ):
                    yield
            except Exception as error:
                told = str(error) if isinstance(error, BadInput) else redacted(traceback.format_exc())
                log.write(f"{told}\n")
                sys.exit(told)
    except BadInput as error:  # of the log
        sys.exit(str(error))


@contextmanager
def not_written() -> Iterator[None]:
    """Raise BadInput with a sentence in place of the error of a file that the system does not let a job write."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        file = error.filename2 or error.filename or "A file"
        raise BadInput(
            f"{file} cannot be written ({error.strerror}); make room or permit it, and run the same command again."
        ) from error


class _Both:
    """A stream that writes to two."""

    def __init__(self, one, two):
        self._one, self._two = one, two

    def write(self, text: str) -> int:
        text = redacted(text)
        self._two.write(text)
        return self._one.write(text)

    def flush(self) -> None:
        self._one.flush()
        self._two.flush()

    def __getattr__(self, name: str):
        return getattr(self._one, name)
