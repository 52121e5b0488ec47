"""Progress of a long step, shown outside the notebook that runs it: executed notebooks contain no progress bars."""

import os
import sys
import time
from contextlib import suppress
from typing import Self

from tqdm import tqdm

FIRST_LINE = "{desc}: {percentage:3.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far{postfix}\n"
LINE = "{desc}: {percentage:3.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} to go{postfix}\n"


class Progress:
    """A progress bar or log for `total` steps of `what`: `with Progress(337, "tuning") as progress:`.

    The notebook runner names the destination in the environment variable NOTEBOOK_PROGRESS. A terminal gets a bar. A
    text file, which the workflow always uses, gets a line after the first step, at 1%, and about every 5%. Without the
    variable, as in a notebook that is opened by hand, the bar goes to standard error if that is a terminal or a kernel.
    `before` steps were completed by an earlier run that this one continues.

    The remaining time is estimated from the pace after the first step, because loading a model or starting an engine
    may precede it. The line after the first step therefore has no estimate.
    """

    def __init__(self, total: int, what: str, before: int = 0):
        self.total, self.what, self.before = total, what, before

    def __enter__(self) -> Self:
        self.done, self.start = self.before, time.monotonic()
        self.first: tuple[int, float] | None = None  # steps done after the first update of this run, and its time
        self.bar = self.log = None
        destination = os.environ.get("NOTEBOOK_PROGRESS")
        if destination:
            with suppress(OSError):  # a closed terminal must not stop the step
                # O_NOCTTY: a kernel leads its own session, and the terminal must not become its controlling terminal.
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY
                self.log = open(os.open(destination, flags, 0o644), "w", buffering=1, encoding="utf-8")
        in_kernel = type(sys.stderr).__module__.startswith("ipykernel")
        if self.log.isatty() if self.log else not destination and (sys.stderr.isatty() or in_kernel):
            # disable=False: the runner sets TQDM_DISABLE to keep the bars of libraries out of cells.
            shape = {"leave": False, "dynamic_ncols": True, "disable": False}
            self.bar = tqdm(total=self.total, initial=self.before, desc=self.what, file=self.log, **shape)
        return self

    def _milestones(self) -> int:
        """The number of milestones passed; a log gets a line at each."""
        return (self.done > self.before) + (self.done * 100 >= self.total) + self.done * 20 // self.total

    def _line(self, note: str) -> str:
        now, rate = time.monotonic(), None
        if self.first:
            done, since = self.first
            rate = (self.done - done) / max(now - since, 1e-3)
        shown = {"prefix": self.what, "postfix": note, "bar_format": LINE if rate else FIRST_LINE}
        return tqdm.format_meter(self.done, self.total, now - self.start, rate=rate, **shown)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more steps as done; `note`, such as the current loss, is shown after the count."""
        passed = self._milestones()
        self.done += n
        with suppress(OSError):
            if self.bar is not None:
                self.bar.set_postfix_str(note, refresh=False)
                self.bar.update(n)
            elif self.log and passed < self._milestones():
                self.log.write(self._line(note))
        self.first = self.first or (self.done, time.monotonic())

    def __exit__(self, *_) -> None:
        for shown in (self.bar, self.log):
            with suppress(OSError):
                if shown is not None:
                    shown.close()
