"""Progress is shown outside the notebook: a bar on a terminal, lines in a log."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from emergent_misalignment.notebook import ROOT
from emergent_misalignment.progress import Progress

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
    command = [sys.executable, "-m", "emergent_misalignment.notebook", *paths]
    subprocess.run(command, cwd=ROOT, stderr=stderr, timeout=60, check=True)
    outputs = nbformat.read(paths[2], as_version=4).cells[0].outputs
    assert [output.text for output in outputs] == ["counted\n"]


def test_a_log_gets_a_line_every_five_percent(paths):
    run(paths, subprocess.DEVNULL)
    text = Path(paths[1]).with_suffix(".progress").read_text()
    assert "\r" not in text
    lines = text.splitlines()
    assert len(lines) == 20
    assert re.fullmatch(r"counting:   5% \(10 of 200\), 00:0\d so far, 00:0\d to go, step 9", lines[0])
    assert lines[-1].startswith("counting: 100% (200 of 200), ")


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


def test_a_closed_terminal_stops_nothing(monkeypatch, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    monkeypatch.setenv("NOTEBOOK_PROGRESS", os.ttyname(theirs))
    with Progress(3, "counting") as progress:
        os.close(ours)
        os.close(theirs)
        for _ in range(3):
            progress.bar.last_print_t = 0  # so that each step is drawn
            progress.update()
    with Progress(1, "counting") as progress:  # now the device is gone altogether
        progress.update()


def test_without_a_place_and_without_a_terminal_nothing_is_shown(monkeypatch, capfd):
    monkeypatch.delenv("NOTEBOOK_PROGRESS", raising=False)
    with Progress(2, "counting") as progress:
        progress.update(2)
    assert capfd.readouterr() == ("", "")
