"""Snakemake logger plugin of `make study` (`snakemake --logger study`): completed and running jobs, and the time left.

A terminal gets a status display that is redrawn every second, with the output of the jobs above it. Otherwise, as in a
CI log, one line is written per finished job. Snakemake's own log is in .snakemake/log/.

The time left is estimated from the core-seconds per rule of the study's last run (logs/STUDY/times.json; for a first
run of the default study, profiles/default/times.json), scaled by the pace of the current run.
"""

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

FIRST_TIMES = Path("profiles/default/times.json")
DEFAULT_STUDY = "organism"
CLEAR_BELOW, UP = "\x1b[J", "\x1b[{}A"
# Snakemake's line, at the end of a traceback or by itself, after a full disk, a quota, a limit of the size of files, or
# a folder that cannot be written.
NOT_WRITTEN = re.compile(
    r"^(?:\w*Error: )?\[Errno (?:1|13|27|28|30|122)\] ([^:\n]+)(?:: (?:'.+' -> )?'(.+)')?$", re.MULTILINE
)
STATUS_INTERVAL = 60  # seconds without output after which running jobs are listed in a log


@dataclass
class Job:
    """A running job: its rule, its wildcards, and the file of its progress."""

    rule: str
    wildcards: str
    threads: int
    progress: Path | None
    start: float

    @property
    def name(self) -> str:
        return f"{self.rule} {self.wildcards}".strip()

    def last_progress(self) -> str:
        """Return the last line of the progress file, which a notebook writes beside its log."""
        with suppress(OSError, AttributeError, IndexError):
            return self.progress.read_text(encoding="utf-8").splitlines()[-1]
        return ""


class Estimate:
    """Estimate of the time left, from the usual core-seconds per job of each rule."""

    def __init__(self, usual: dict[str, float], cores: int):
        self.usual, self.cores = usual, cores
        self.spent, self.expected = 0.0, 0.0
        self.measured: dict[str, list[float]] = {}

    def finished(self, job: Job, now: float) -> None:
        seconds = (now - job.start) * job.threads
        self.measured.setdefault(job.rule, []).append(seconds)
        self.spent += seconds
        self.expected += self.usual.get(job.rule, 0)

    def left(self, waiting: Counter, running: list[Job], now: float) -> float | None:
        """Return the seconds left, or None if a remaining rule has no known time. `waiting` has job counts by rule."""
        ahead = (waiting.keys() | {job.rule for job in running}) - {"all"}
        if not ahead <= self.usual.keys() or not self.usual:
            return None
        # Short jobs are poor evidence of the machine's speed.
        pace = min(max(self.spent / self.expected, 0.25), 4.0) if self.expected > 20 else 1.0
        work = sum(count * self.usual.get(rule, 0) for rule, count in waiting.items()) * pace
        work += sum(max(self.usual.get(j.rule, 0) * pace - (now - j.start) * j.threads, 1) for j in running)
        return work / self.cores

    def times(self) -> dict[str, float]:
        """Return the mean core-seconds per job by rule, from this run if measured."""
        means = {rule: round(sum(seconds) / len(seconds), 1) for rule, seconds in self.measured.items()}
        return dict(sorted((self.usual | means).items()))


def clock(seconds: float) -> str:
    """Format a duration as H:MM:SS or M:SS."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def about(seconds: float | None) -> str:
    """Describe the time left, rounded to minutes or tenths of an hour."""
    if seconds is None:
        return ""
    if seconds < 45:
        return ", less than a minute left"
    if seconds < 5400:
        minutes = max(1, round(seconds / 60))
        return f", about {minutes} {'minute' if minutes == 1 else 'minutes'} left"
    return f", about {seconds / 3600:.1f} hours left"


def sentence(message: str) -> str:
    """A message of Snakemake's; what was not written, and why, in place of a traceback about it."""
    if not (found := NOT_WRITTEN.search(message)):
        return message
    reason, file = found.groups()
    return f"{file or 'A file'} cannot be written ({reason}); make room or permit it, and run the same command again."


class LogHandler(LogHandlerBase):
    """Counts jobs by Snakemake's events and displays their state."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True  # independent of --quiet
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        logging.raiseExceptions = False  # no traceback for each line of Snakemake's own log that a full disk refuses
        self.waiting, self.running = Counter(), {}
        self.done, self.total, self.cores, self.study = 0, 0, os.cpu_count() or 1, ""
        self.estimate, self.failed = Estimate({}, 1), False
        self.start = self.last_line = self.idle_since = time.monotonic()
        self.idle = 0.0  # seconds without a running job: Snakemake's overhead
        self.guard, self.ended, self.threads = threading.RLock(), threading.Event(), []
        self.screen = None
        if sys.stderr.isatty() and not self.common_settings.dryrun:
            self._take_terminal()
        self._in_background(self._tick)

    def emit(self, record) -> None:
        try:
            self._take(record)
        except Exception:  # an error in the display must not stop the run
            self.handleError(record)
        self._draw()

    def _take(self, record) -> None:
        event, said = getattr(record, "event", None), record.__dict__
        if self.common_settings.dryrun:
            self._say(self.format(record))
            return
        with self.guard:
            if event == LogEvent.RESOURCES_INFO and said.get("cores"):
                self.cores = said["cores"]
            elif event == LogEvent.RUN_INFO:
                self.waiting = Counter({rule: count for rule, count in said["stats"].items() if rule != "total"})
                self.total = self.waiting.total()
            elif event == LogEvent.JOB_INFO:
                self._began(said)
            elif event == LogEvent.JOB_FINISHED:
                self._finished(said["job_id"])
            elif event == LogEvent.JOB_ERROR:
                self.failed = True
                self.running.pop(said["jobid"], None)
                logs = ", ".join(said["log"] or [])
                self._say(f"{said['rule_name']} failed{f': read {logs}' if logs else ''}")
            elif record.levelname in ("WARNING", "ERROR", "CRITICAL"):
                self.failed = self.failed or record.levelname != "WARNING"
                self._say(sentence(record.getMessage()))
            elif "Nothing to be done" in str(record.msg):
                self._say("Nothing to do: everything is up to date.")

    def _began(self, said: dict) -> None:
        wildcards = dict(said["wildcards"] or {})
        study = wildcards.pop("study", "")
        if study and not self.study:
            self.study = study
            self.estimate = Estimate(self._times(), self.cores)
        log = next(iter(said["log"] or []), None)
        job = Job(
            rule=said["rule_name"],
            wildcards=" ".join(map(str, wildcards.values())),
            threads=said["threads"] or 1,
            progress=Path(log).with_suffix(".progress") if log else None,
            start=time.monotonic(),
        )
        if not self.running:
            self.idle += job.start - self.idle_since
        self.running[said["jobid"]] = job
        self.waiting[job.rule] -= 1

    def _finished(self, number: int) -> None:
        self.done += 1
        if job := self.running.pop(number, None):
            now = self.idle_since = time.monotonic()
            self.estimate.finished(job, now)
            if not self.screen and job.rule != "all":
                self._say(f"{self._count()}: {job.name} took {clock(now - job.start)}{self._left()}")

    def _times(self) -> dict[str, float]:
        times = {}
        for path in ([FIRST_TIMES] if self.study == DEFAULT_STUDY else []) + [self._own_times()]:
            with suppress(OSError, ValueError, TypeError):
                times |= json.loads(path.read_text(encoding="utf-8"))
        return times

    def _own_times(self) -> Path:
        return Path("logs", self.study, "times.json")

    def _count(self) -> str:
        return f"{self.done} of {self.total} done"

    def _left(self) -> str:
        if self.failed:
            return ""
        return about(self.estimate.left(+self.waiting, list(self.running.values()), time.monotonic()))

    def _say(self, text: str) -> None:
        """Write permanent lines."""
        with self.guard:
            self._write(f"{CLEAR_BELOW}{text}\n" if self.screen else f"{text}\n")
            self.last_line = time.monotonic()

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed terminal must not stop the run
            stream = self.screen or sys.stderr
            stream.write(text)
            stream.flush()

    # --- terminal ---

    def _take_terminal(self) -> None:
        """Redirect the output of the jobs to a pipe, so that it does not interfere with the status display."""
        self.screen = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.kept = {number: os.dup(number) for number in (1, 2)}
        reading, writing = os.pipe()
        for number in self.kept:
            os.dup2(writing, number)
        os.close(writing)
        self._in_background(self._pass_on, reading)

    def _pass_on(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._say(line.rstrip("\n"))

    def _draw(self) -> None:
        with self.guard:
            if not self.screen or not self.total or self.ended.is_set():
                return
            columns = shutil.get_terminal_size().columns - 1
            now, width = time.monotonic(), 24
            full = round(width * self.done / self.total)
            bar = "\N{FULL BLOCK}" * full + "\N{LIGHT SHADE}" * (width - full)
            lines = [f"{bar}  {self._count()}, {clock(now - self.start)} so far{self._left()}"]
            for job in self.running.values():
                lines.append(f"  {job.name}, {clock(now - job.start)}".ljust(width + 2) + f"{job.last_progress()}")
            shown = "".join(f"{line[:columns]}\n" for line in lines)
            self._write(f"{CLEAR_BELOW}{shown}{UP.format(len(lines))}")

    # --- background and end ---

    def _in_background(self, work, *arguments) -> None:
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def _tick(self) -> None:
        while not self.ended.wait(1):
            self._draw()
            with self.guard:
                if not self.screen and self.running and time.monotonic() - self.last_line > STATUS_INTERVAL:
                    now = [f"{job.name} {job.last_progress()}".strip() for job in self.running.values()]
                    self._say(f"{self._count()}{self._left()}; running: {'; '.join(now)}")

    def close(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        if self.screen:
            for number, kept in self.kept.items():
                os.dup2(kept, number)
                os.close(kept)
            self.threads[0].join(2)  # until all output has been passed on
        if self.total:
            how = "Stopped" if self.failed or self.done < self.total else "Done"
            took = time.monotonic() - self.start
            self.idle += 0 if self.running else time.monotonic() - self.idle_since
            idle = f", {clock(self.idle)} ({self.idle / took:.0%}) of it without a running job" if took > 60 else ""
            self._say(f"{how} after {clock(took)}{idle}: {self._count()}.")
            pages = [Path("data", self.study, name) for name in ("report.html", "notebooks/index.html")]
            pages = [str(page) for page in pages if page.exists()]
            if how == "Done" and self.study and pages:
                self._say(f"Open {' and '.join(pages)}")
        if self.estimate.measured:
            with suppress(OSError):
                self._own_times().parent.mkdir(parents=True, exist_ok=True)
                self._own_times().write_text(json.dumps(self.estimate.times(), indent=1) + "\n", encoding="utf-8")
        super().close()
