"""Progress outside notebooks: a bar on a terminal, lines in a log, and the status of a study."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import traceback
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from emergent_misalignment.progress import Progress
from emergent_misalignment.workflow.notebook import ROOT
from snakemake_logger_plugin_study import Estimate, Job, about, sentence

CELL = """\
from emergent_misalignment.progress import Progress
import time
with Progress(200, "counting") as progress:
    for step in range(200):
        time.sleep(0.002)
        progress.update(note=f"step {step}")
print("counted")"""


@pytest.fixture
def paths(tmp_path):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(CELL)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "01_count.ipynb")
    return [str(tmp_path / folder / "01_count.ipynb") for folder in (".", "logs", "out")]


def run(paths: list[str], stderr: int) -> None:
    command = [sys.executable, str(ROOT / "tests/run_notebook.py"), *paths]
    subprocess.run(command, cwd=ROOT, stderr=stderr, check=True)
    outputs = nbformat.read(paths[2], as_version=4).cells[0].outputs
    assert [output.text for output in outputs] == ["counted\n"]


def test_a_log_gets_a_line_after_the_first_step_and_every_five_percent(paths):
    run(paths, subprocess.DEVNULL)
    text = Path(paths[1]).with_suffix(".progress").read_text()
    assert "\r" not in text
    lines = text.splitlines()
    assert len(lines) == 22
    assert re.fullmatch(r"counting:   0% \(1 of 200\), 00:0\d so far, step 0", lines[0])
    assert re.fullmatch(r"counting:   1% \(2 of 200\), 00:0\d so far, 00:0\d to go, step 1", lines[1])
    assert re.fullmatch(r"counting:   5% \(10 of 200\), 00:0\d so far, 00:0\d to go, step 9", lines[2])
    assert lines[-1].startswith("counting: 100% (200 of 200), ")


@pytest.fixture
def written(monkeypatch, tmp_path):
    """A function that counts steps of a second each after `late` seconds, and returns the lines of the log."""

    def count(total: int, *steps: int, before: int = 0, late: float = 0) -> list[str]:
        place, now = tmp_path / "counted.progress", [0.0]
        monkeypatch.setenv("NOTEBOOK_PROGRESS", str(place))
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        place.unlink(missing_ok=True)
        with Progress(total, "counting", before) as progress:
            now[0] = late
            for step in steps:
                now[0] += 1
                progress.update(step)
        return [line.partition(", ")[2] for line in place.read_text().splitlines()]

    return count


def test_the_time_left_follows_from_the_pace_since_the_first_step(written):
    """A model may be loaded before the first step."""
    assert written(1000, 1, 1) == ["00:01 so far"]
    assert written(1000, 1, 9, 53) == ["00:01 so far", "00:02 so far, 01:50 to go", "00:03 so far, 00:30 to go"]
    assert written(5, 1, 1, late=60) == ["01:01 so far", "01:02 so far, 00:03 to go"]
    assert written(1, 1) == ["00:01 so far"]


def test_a_resumed_run_counts_from_its_first_step(written):
    assert written(337, 1, 10, before=297) == ["00:01 so far", "00:02 so far, 00:02 to go"]
    assert written(337, 20, 20, before=297) == ["00:01 so far", "00:02 so far, 00:00 to go"]


@given(st.integers(1, 400), st.data())
def test_the_first_and_the_last_step_are_logged(total, data):
    before = data.draw(st.integers(0, total - 1))
    steps, done = [], before
    while done < total:
        steps.append(data.draw(st.integers(1, total - done)))
        done += steps[-1]
    lines = io.StringIO()
    with Progress(total, "counting", before) as progress:
        progress.log, progress.bar = lines, None
        for step in steps:
            progress.update(step)
        progress.log = None
    counts = [int(re.search(r"\((\d+) of", line)[1]) for line in lines.getvalue().splitlines()]
    assert counts[0] == before + steps[0] and counts[-1] == total
    assert counts == sorted(set(counts)) and len(counts) <= 22


def test_a_terminal_gets_a_bar(paths):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    run(paths, theirs)
    os.set_blocking(ours, False)
    shown = os.read(ours, 1_000_000).decode()
    os.close(ours)
    os.close(theirs)
    assert re.search(r"\rcounting: +\d+%\|.*\| \d+/200 \[.*, step \d+\]", shown)
    assert not Path(paths[1]).with_suffix(".progress").exists()


def test_a_closed_terminal_is_ignored(monkeypatch, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    monkeypatch.setenv("NOTEBOOK_PROGRESS", os.ttyname(theirs))
    with Progress(3, "counting") as progress:
        os.close(ours)
        os.close(theirs)
        for _ in range(3):
            progress.bar.last_print_t = 0  # draw each step
            progress.update()
    with Progress(1, "counting") as progress:  # the device does not exist any more
        progress.update()


def test_without_a_destination_or_terminal_nothing_is_shown(monkeypatch, capfd):
    monkeypatch.delenv("NOTEBOOK_PROGRESS", raising=False)
    with Progress(2, "counting") as progress:
        progress.update(2)
    assert capfd.readouterr() == ("", "")


WORKFLOW = """
rule all:
    input: "data/toy/b.txt"
rule a:
    output: "data/{study}/a.txt"
    log: "logs/{study}/a.ipynb"
    shell:
        "mkdir -p logs/toy; echo 'counting:  50% (5 of 10)' > logs/toy/a.progress; sleep 1.5; "
        "echo said by a >&2; date > {output}"
rule b:
    input: "data/{study}/a.txt"
    output: "data/{study}/b.txt"
    log: "logs/{study}/b.log"
    params: broken=config.get("broken", 0)
    shell: "test {params.broken} = 0 && cp {input} {output}"
"""


@pytest.fixture
def toy(tmp_path):
    """A function that runs a workflow of two rules under the logger and returns its output."""
    (tmp_path / "Snakefile").write_text(WORKFLOW)

    def show(*arguments: str, terminal: bool) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--logger", "study", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        if not terminal:
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 100_000):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        process.wait()
        os.close(ours)
        return shown.decode()

    return show


@pytest.mark.slow
def test_a_study_logs_a_line_per_job_without_a_terminal(toy):
    shown = toy(terminal=False)
    assert "\x1b" not in shown
    assert re.search(r"^1 of 3 done: a took 0:0\d$", shown, flags=re.M)
    assert re.search(r"^2 of 3 done: b took 0:0\d$", shown, flags=re.M)
    assert re.search(r"^Done after 0:0\d: 3 of 3 done\.$", shown, flags=re.M)
    assert "said by a" in shown
    assert "jobid" not in shown
    assert "Nothing to do" in toy(terminal=False)


@pytest.mark.slow
def test_a_terminal_shows_running_jobs_and_their_output(toy, tmp_path):
    shown = toy(terminal=True)
    assert "1 of 3 done" in shown
    assert re.search(r"  a, 0:0\d +counting:  50% \(5 of 10\)", shown)
    assert "\x1b[Jsaid by a\r\n" in shown  # a permanent line
    assert json.loads((tmp_path / "logs/toy/times.json").read_text())["a"] > 1
    (tmp_path / "data/toy/a.txt").unlink()
    again = toy("--config", "broken=1", terminal=True)
    assert "less than a minute left" in again  # from the times of the first run
    assert "b failed: read logs/toy/b.log" in again
    assert "Stopped after" in again.splitlines()[-1]


def test_the_time_left_follows_the_pace_of_the_run():
    estimate = Estimate({"long": 100.0, "short": 1.0}, cores=2)
    waiting = Counter(long=3, short=10)
    assert estimate.left(waiting, [], now=0) == (300 + 10) / 2
    running = Job(rule="long", wildcards="", threads=2, progress=None, start=0)
    assert estimate.left(Counter(long=2), [running], now=25) == (200 + 50) / 2
    estimate.finished(running, now=100)  # two cores: twice the expected work
    assert estimate.left(Counter(long=1), [], now=100) == 200 / 2
    assert estimate.times() == {"long": 200.0, "short": 1.0}
    assert Estimate({}, cores=2).left(waiting, [], now=0) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (20, ", less than a minute left"),
        (61, ", about 1 minute left"),
        (700, ", about 12 minutes left"),
        (9000, ", about 2.5 hours left"),
    ],
)
def test_the_time_left_is_rounded(seconds, words):
    assert about(seconds) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(30, "Read-only file system", "data/s/a.csv"),
            "data/s/a.csv cannot be written (Read-only file system)",
        ),
        (PermissionError(13, "Permission denied", "a"), "a cannot be written (Permission denied)"),
        (OSError(28, "No space left on device"), "A file cannot be written (No space left on device)"),
    ],
)
def test_what_snakemake_could_not_write_is_one_sentence(error, words):
    try:
        raise error
    except OSError:
        message = traceback.format_exc()
    assert sentence(message) == f"{words}; make room or permit it, and run the same command again."
    assert sentence(f"RuleException:\nOSError in file 'a':\n{error}\n  File 'b'") == sentence(message)
    assert sentence("OSError: [Errno 2] No such file or directory: 'a'").startswith("OSError")


def test_jobs_of_the_workflow_write_progress_to_logs(paths, monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("NOTEBOOK_PROGRESS", "log")
    run(paths, theirs)
    os.close(ours)
    os.close(theirs)
    assert Path(paths[1]).with_suffix(".progress").read_text().startswith("counting:   0% (1 of 200)")
