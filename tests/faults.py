"""The smoke study under random faults: `make faults N=200 SEED=1`.

    python tests/faults.py 200 1
    python tests/faults.py 200 1 FOLDER    # a copy of the project in which the smoke study has been run

The smoke study is run once without faults. A trial copies it, removes the results of one stage, runs the stage under
one fault, removes the fault, and runs it again if the results are not there. It succeeds if all results of the study
are then the same bytes as without the fault, and if a first run that did not get there said why in a sentence. The seed
chooses trials; how far a run is when a process is killed also depends on the machine.
"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import psutil
import yaml
from published_layout import place
from servers import Handler, completion, serving
from waiting import wait_until
from workflow_helpers import SMOKE, at_work, copy_of_the_project, environment, snakemake, tables

# Stages that take longer than seconds, and the page with times, which is another one after each run.
SLOW = {"pretrain", "instruct", "numbers", "finetune", "ask", "beliefs", "persona_direction", "score_rows", "pages"}
SLOW |= {"run_details"}
PLAIN = """
set -e; export STUDY_MAKE=$$
python -m snakemake "$@" --configfile $CONFIG --cores 1 --logger study
"""
# As `make study`, but for the results of one stage.
MAKE = """
set -e; export STUDY_MAKE=$$
damaged=$(python -m emergent_misalignment.study.damaged $CONFIG)
[ -z "$damaged" ] || python -m snakemake $damaged --forcerun $damaged --configfile $CONFIG --cores 1 --logger study
python -m snakemake "$@" --configfile $CONFIG --cores 1 --logger study
"""
NOT_WRITTEN = "No space left on device|File too large|Read-only file system|Permission denied"
DAMAGED = "is not as its stage wrote it"
YEAR = 365 * 24 * 3600
WRONG = "WRONG"


@dataclass(frozen=True)
class Stage:
    """A job of a study: its rule, its outputs, and the files that it reads."""

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass
class Trial:
    """A copy of a finished study, `reference`, in which the results of one stage are missing."""

    folder: Path
    reference: Path
    stage: Stage
    makers: dict[str, str]  # the rule that makes each file
    random: random.Random
    config: str = SMOKE[1]
    logs: list[Path] = field(default_factory=list)

    def start(self, script: str = MAKE, **how) -> subprocess.Popen:
        """Run the stage in the background."""
        self.logs.append(Path(f"{self.folder}.{len(self.logs)}.log"))
        with self.logs[-1].open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", script, "make", *self.stage.outputs],
                cwd=self.folder,
                env=environment(self.folder) | {"CONFIG": self.config},
                stdout=file,
                stderr=file,
                **how,
            )

    def run(self, script: str = MAKE, **how) -> None:
        self.start(script, **how).wait()

    def said(self, words: str) -> str:
        """The line with `words` that the runs have shown; "" if there is none, or a traceback."""
        shown = "".join(log.read_text() for log in self.logs)
        lines = [line for line in shown.splitlines() if re.search(words, line)]
        return lines[0].strip() if lines and "Traceback (most recent call last)" not in shown else ""

    def restored(self, path: str) -> None:
        shutil.copy2(self.reference / path, self.folder / path)

    def place(self) -> Path:
        """A folder that the stage, or Snakemake on its behalf, writes to."""
        folders = {os.path.dirname(path) for path in self.stage.outputs} | {"logs/smoke", ".snakemake"}
        return self.folder / self.random.choice(sorted(folders))


# --- faults -----------------------------------------------------------------------------------------------------------
# Each runs the stage under a fault that then ends. It returns the words of the sentence that a run has to say if it
# does not get to the same results (None after a kill, which has no time to say any), and what a user then has to do.

Repair = Callable[[], None]


def nothing() -> None:
    pass


def killed(trial: Trial) -> tuple[str | None, Repair]:
    """`kill -9` of any process of the run."""
    number, later = trial.random.randint(1, 6), trial.random.uniform(0, 2)
    run = trial.start()
    wait_until(lambda: run.poll() is not None or len(at_work(trial.folder)) >= number, every=0.02)
    time.sleep(later)
    if processes := sorted(at_work(trial.folder), key=lambda process: process.pid):
        with suppress(psutil.NoSuchProcess):
            trial.random.choice(processes).kill()
    run.wait()
    wait_until(lambda: not at_work(trial.folder), every=0.5)
    return None, nothing


def full_disk(trial: Trial) -> tuple[str, Repair]:
    """A folder on a disk with little room; where nothing can be mounted, a limit of the size of files."""
    room = trial.random.choice([0, 4, 16, 64]) << 10
    if can_mount():
        with small_disk(trial.place(), room):
            trial.run()
    else:
        trial.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room + 1024, room + 1024)))
    return NOT_WRITTEN, nothing


def read_only(trial: Trial) -> tuple[str, Repair]:
    """A folder in which nothing can be written."""
    folder = trial.place()
    folder.mkdir(parents=True, exist_ok=True)
    if can_mount():
        mount("--bind", folder, folder)
        mount("-o", "remount,ro,bind", folder)
    else:
        folder.chmod(0o555)
    try:
        trial.run()
    finally:
        if can_mount():
            subprocess.run(["umount", folder], check=True)
        else:
            folder.chmod(0o755)
    return NOT_WRITTEN, nothing


def damaged(trial: Trial) -> tuple[str, Repair]:
    """A file that the stage reads, or a result of a quick stage, is truncated or has one bit flipped.

    What takes longer to make again is restored from a copy, after a plain run of Snakemake has refused it.
    """
    read = [path for path in trial.stage.inputs if path in trial.makers]
    results = [path for path in trial.makers if trial.makers[path] not in SLOW and path not in trial.stage.outputs]
    path = trial.random.choice(trial.random.choice([read or results, sorted(results)]))
    record = json.loads((trial.folder / ".snakemake/digests" / path).read_text())
    file = trial.random.choice(sorted(record))
    damage(trial.folder / file, trial.random)
    quick = trial.makers[path] not in SLOW or path.endswith(".ipynb")
    trial.run(MAKE if quick else PLAIN)
    return DAMAGED, lambda: trial.restored(file)


def wrong_clock(trial: Trial) -> tuple[str, Repair]:
    """Sources from the past, or any files from the future, as of a clock that jumps.

    Results from the past are left out: Snakemake repeats what is older than its script, and with it the slow stages.
    """
    sources, computed = ("config", "notebooks", "emergent_misalignment"), ("data", "figures", "paper", "logs")
    seconds = trial.random.choice([-1, 1]) * trial.random.uniform(3600, YEAR)
    places = sources if seconds < 0 else sources + computed
    files = sorted(path for each in places for path in (trial.folder / each).rglob("*") if path.is_file())
    files = trial.random.sample(files, trial.random.choice([1, 30, len(files)]))
    for file in files:
        os.utime(file, (file.stat().st_mtime + seconds,) * 2)
    trial.run()

    def now() -> None:
        for file in files:
            file.touch()

    return "older modification time", now


def two_runs(trial: Trial) -> tuple[str, Repair]:
    """The same command twice at once."""
    first = trial.start()
    time.sleep(trial.random.uniform(0, 4))
    second = trial.start()
    first.wait()
    second.wait()
    return "Another run is at work", nothing


FAULTS = (killed, full_disk, read_only, damaged, wrong_clock, two_runs)


def damage(file: Path, draw: random.Random) -> None:
    """Truncate a file or flip one bit of it; half of the time its modification time stays."""
    content, status = bytearray(file.read_bytes()), file.stat()
    if draw.random() < 0.5:
        del content[draw.randrange(len(content)) :]
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    if draw.random() < 0.5:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def mount(*arguments) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


@cache
def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount("-t", "tmpfs", "-o", "size=4k", "faults", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[None]:
    """A folder on a disk of its own, with so many bytes of room."""
    aside = folder.with_name(f"{folder.name}.aside")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(aside)
    folder.mkdir()
    mount("-t", "tmpfs", "faults", folder)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        disk = os.statvfs(folder)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        mount("-o", f"remount,size={used + room}", folder)
        yield
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
        aside.rename(folder)


# --- a judge that fails -----------------------------------------------------------------------------------------------

JUDGED = "data/judged/judged/answers.parquet"
UNJUDGED = "requests to .* were not answered|The reply of the judge .* is unusable"
TIMEOUT = 2  # seconds that the client waits for a reply


class Judge:
    """A judge at an address of its own, whose replies depend on the request and fail at a given rate."""

    def __init__(self):
        self.lock = threading.Lock()
        self.fails(0.0, 0)

    @contextmanager
    def running(self) -> Iterator[str]:
        judge = self

        class Chat(Handler):
            def do_POST(self):
                request = json.loads(self.body())
                judge.reply(self, request, request["messages"][-1]["content"])

        with serving(Chat) as address:
            yield address

    def fails(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self.attempts, self.filtered = rate, seed, Counter(), 0

    def reply(self, chat: Handler, request: dict, text: str) -> None:
        with self.lock:
            self.attempts[text] += 1
            draw = random.Random(f"{self.seed} {self.attempts[text]} {text}")
        mark = str(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100)
        found = completion(request["model"], "", [[(mark, 0.9)]])
        kind = draw.choice(["late", 429, 500, "half", "filtered"]) if draw.random() < self.rate else ""
        if isinstance(kind, int):
            return chat.send(kind, {"error": {"message": "try later"}}, {"retry-after-ms": "10"})
        if kind == "late":
            time.sleep(TIMEOUT + 1)
        if kind == "filtered":
            with self.lock:
                self.filtered += 1
            found["choices"][0] |= {"finish_reason": "content_filter", "logprobs": None}
        if kind == "half":
            return chat.send_half(found)
        return chat.send(200, found)


def judged_study(reference: Path, folder: Path, address: str) -> Path:
    """A copy of the project in which a finished study of one model is judged at `address`."""
    copy_of_the_project(folder)
    place(folder)
    own = {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "judged",
        "seeds": [1, 2],
        "model": {
            "name": str(reference / "data/smoke/organisms/main/seed-1/instruct"),
            "revision": "",
            "gpu": False,
        },
        "experiments": {"code": None, "intent": None},
        "evaluation": {"asked": ["main"], "samples": 5, "max_new_tokens": 8},
        "judge": {"endpoint": {"base_url": address, "key_variable": "NO_KEY", "concurrency": 8, "timeout": TIMEOUT}},
    }
    own["judge"]["endpoint"]["retries"] = 2
    (folder / "config/judged.yaml").write_text(yaml.safe_dump(own))
    done = snakemake(folder, JUDGED, "--cores", "1", "--configfile", "config/judged.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def try_judge(judge: Judge, reference: Path, folder: Path, number: int, seed: int) -> dict:
    """Judge under faults, with no kept answers, and then again without: kept answers are not asked for again."""
    draw = random.Random(f"{seed} {number}")
    shutil.copytree(reference, folder, symlinks=True)
    shutil.rmtree(folder / "kept/judge")
    (folder / JUDGED).unlink()
    trial = Trial(folder, reference, Stage("judge", (JUDGED,), ()), {}, draw, "config/judged.yaml")
    judge.fails(draw.choice([0.1, 0.3, 0.6]), number)
    trial.run(PLAIN)
    counts = (folder / JUDGED).with_suffix(".csv")
    counted = (folder / JUDGED).exists() and pd.read_csv(counts)["filtered"].item() == judge.filtered
    told = f"{judge.filtered} filtered replies are counted" if counted else trial.said(UNJUDGED)
    judge.fails(0.0, 0)

    def again() -> None:  # of a judge whose filter withholds other replies now
        (folder / JUDGED).unlink(missing_ok=True)

    def same() -> bool:
        return _bytes(folder / JUDGED) == _bytes(reference / JUDGED)

    return outcome(trial, "judge", same, told, again, PLAIN)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


# --- trials -----------------------------------------------------------------------------------------------------------


def stages(reference: Path) -> list[Stage]:
    """The jobs of the finished smoke study, in the order of their first outputs."""
    done = snakemake(reference, "--detailed-summary", *SMOKE)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") > 4][1:]
    jobs: dict[tuple, list] = {}
    for output, _, rule, log, inputs, *_ in lines:
        jobs.setdefault((rule, log, tuple(inputs.split(","))), []).append(output)
    return sorted(
        (Stage(rule, tuple(sorted(outputs)), inputs) for (rule, _, inputs), outputs in jobs.items()),
        key=lambda stage: stage.outputs,
    )


def try_fault(reference: Path, jobs: list[Stage], folder: Path, fault: Callable, number: int, seed: int) -> dict:
    """One trial in `folder`."""
    draw = random.Random(f"{seed} {number}")
    stage = draw.choice([stage for stage in jobs if stage.rule not in SLOW])
    makers = {path: stage.rule for stage in jobs for path in stage.outputs}
    shutil.copytree(reference, folder)
    trial = Trial(folder, reference, stage, makers, draw)
    for path in stage.outputs:
        (folder / path).unlink()
    words, repair = fault(trial)
    return outcome(
        trial,
        fault.__name__,
        lambda: tables(folder) == tables(reference),
        "killed" if words is None else trial.said(words),
        repair,
    )


def outcome(trial: Trial, fault: str, same: Callable[[], bool], told: str, repair: Repair, script: str = MAKE) -> dict:
    """What became of a trial: the same results at once, or after it was told and run again, or neither."""
    row = {"fault": fault, "stage": trial.stage.rule, "outcome": "same", "told": told}
    if same():
        return row
    repair()
    trial.run(script)
    after = "resumed" if told == "killed" else "told"
    return row | {"outcome": after if told and same() else WRONG}


def main(number: int, seed: int, reference: Path | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    if not reference:
        reference = copy_of_the_project(folder / "reference")
        done = snakemake(reference, "--cores", "2", *SMOKE)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    jobs, judge, rows = stages(reference), Judge(), []
    with judge.running() as address:
        for trial in range(number):
            place = folder / f"trial-{trial}"
            if turn := (trial + 1) % (len(FAULTS) + 1):
                row = try_fault(reference, jobs, place, FAULTS[turn - 1], trial, seed)
            else:
                judged = folder / "judged"
                judged = judged if judged.exists() else judged_study(reference, judged, address)
                row = try_judge(judge, judged, place, trial, seed)
            rows.append(row)
            print(trial, *row.values(), sep=" | ", flush=True)
            if row["outcome"] != WRONG:  # which is left there, to look at
                for each in folder.glob(f"{place.name}*"):
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
    counts = pd.crosstab([row["fault"] for row in rows], [row["outcome"] for row in rows])
    print(counts.rename_axis(index=None, columns=None).to_string())
    return int(any(row["outcome"] == WRONG for row in rows))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).resolve() if sys.argv[3:] else None))
