"""How far a long step is, shown outside the notebook that runs it, so that executed notebooks hold no progress bars."""

import os
import sys
import time
from contextlib import suppress
from typing import Self

from tqdm import tqdm

BEGUN = "{desc}: {percentage:3.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far{postfix}\n"
LINE = "{desc}: {percentage:3.0f}% ({n_fmt} of {total_fmt}), {elapsed} so far, {remaining} to go{postfix}\n"


class Progress:
    """A bar for `total` steps of `what`, where whoever waits can see it: `with Progress(337, "tuning") as progress:`.

    The notebook runner names that place in the environment variable NOTEBOOK_PROGRESS: a terminal, which gets a bar,
    or a text log, which gets a line after the first step, at 1%, and about every 5%; in a run of the workflow it is
    always a log. Without the variable, as in a notebook that a person opened, the bar goes to standard error if
    somebody looks there. `before` steps were done by an earlier run, from which this one goes on.

    The time left follows from the pace since the first step, before which a model may be loaded and an engine started;
    so the line after that step tells none.
    """

    def __init__(self, total: int, what: str, before: int = 0):
        self.total, self.what, self.before = total, what, before

    def __enter__(self) -> Self:
        self.done, self.start = self.before, time.monotonic()
        self.first: tuple[int, float] | None = None  # steps that were done after the first of this run, and when
        self.bar = self.log = None
        place = os.environ.get("NOTEBOOK_PROGRESS")
        if place:
            with suppress(OSError):  # a closed terminal is no reason to stop
                # O_NOCTTY: a kernel leads a session of its own, and the terminal must not become that session's.
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY
                self.log = open(os.open(place, flags, 0o644), "w", buffering=1, encoding="utf-8")
        if self.log.isatty() if self.log else not place and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            # Shown even under TQDM_DISABLE, with which the runner keeps the bars of libraries out of cells.
            shape = {"leave": False, "dynamic_ncols": True, "disable": False}
            self.bar = tqdm(total=self.total, initial=self.before, desc=self.what, file=self.log, **shape)
        return self

    def _lines(self) -> int:
        """Of the places at which a log gets a line, how many have been passed."""
        return (self.done > self.before) + (self.done * 100 >= self.total) + self.done * 20 // self.total

    def _line(self, note: str) -> str:
        now, rate = time.monotonic(), None
        if self.first:
            done, since = self.first
            rate = (self.done - done) / max(now - since, 1e-3)
        shown = {"prefix": self.what, "postfix": note, "bar_format": LINE if rate else BEGUN}
        return tqdm.format_meter(self.done, self.total, now - self.start, rate=rate, **shown)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more steps as done; `note` stands beside the count, a current loss for example."""
        passed = self._lines()
        self.done += n
        with suppress(OSError):
            if self.bar is not None:
                self.bar.set_postfix_str(note, refresh=False)
                self.bar.update(n)
            elif self.log and passed < self._lines():
                self.log.write(self._line(note))
        self.first = self.first or (self.done, time.monotonic())

    def __exit__(self, *_) -> None:
        with suppress(OSError):
            if self.bar is not None:
                self.bar.close()
            if self.log:
                self.log.close()
