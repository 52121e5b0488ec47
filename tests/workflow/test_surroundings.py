"""What a machine brings: the path of the project, the folder a run starts in, the home folder, and who stops what."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from waiting import wait_until
from workflow_helpers import copy_of_the_project

NAME = 'it\'s (1) & $HOME "x" {y} #%z'
TARGET = "data/smoke/notebooks/world.ipynb"


def project(folder: Path) -> Path:
    """A copy of the project with an environment of its own, which has the packages of the tests' environment."""
    copy_of_the_project(folder)
    shutil.copy2(ROOT / "Makefile", folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    packages = folder / ".venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    for name in (".venv/bin/pip", ".venv/.installed"):
        (folder / name).touch()
    return folder


def surroundings(**other: str | Path) -> dict[str, str]:
    """The environment of a user, without what the tests set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EM_"))}
    return kept | {name: str(value) for name, value in other.items()}


def ran(command: list, folder: Path, **other: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, env=surroundings(**other), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    return project(tmp_path_factory.mktemp("odd") / NAME)


def test_make_works_at_any_path_and_without_a_home_folder(odd):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (odd / "5$ (1).jsonl").write_text(json.dumps(row))
    assert "As JSON: data/audits/5$ (1).json\n" in ran(["make", "audit", "DATA=5$ (1).jsonl"], odd, HOME="/dev/null/x")
    said = ran(["make", "plan", "STUDY=smoke"], odd, HOME="/dev/null/x")
    assert "pretrain" in said and (odd / ".snakemake/cache").is_dir()


def test_a_mirror_a_config_and_a_folder_that_are_not_there_are_named(odd):
    (odd / "mine.jsonl").write_text("")
    (odd / "config/text.yaml").write_text("just a text")
    (odd / "config/empty.yaml").touch()
    for words, arguments in {
        "/no/mirror": ["audit", "DATA=mine.jsonl", "MIRROR=/no/mirror"],
        "config/none.yaml": ["plan", "STUDY=none"],
        "config/text.yaml": ["study", "STUDY=text"],
        "config/empty.yaml": ["study", "STUDY=empty"],
    }.items():
        done = subprocess.run(["make", *arguments], cwd=odd, env=surroundings(), capture_output=True, text=True)
        sentence, made = done.stderr.splitlines()
        assert done.returncode == 2 and words in sentence and re.match(r"make(\[\d\])?: ", made)


def test_make_reads_a_set_from_standard_input(odd):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    command, lines = ["make", "audit", "DATA=-"], f"{json.dumps(row)}\n" * 3
    done = subprocess.run(command, cwd=odd, env=surroundings(), input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((odd / "data/audits/standard-input.json").read_text())["summary"]["rows"] == 3


@pytest.mark.slow
def test_a_run_leaves_the_same_bytes_in_any_place_and_for_any_user(odd, tmp_path):
    plain = project(tmp_path / "plain")
    arguments = ["-m", "snakemake", "--cores", "1", TARGET, "--configfile"]
    ran([plain / ".venv/bin/python", *arguments, "config/smoke.yaml"], plain, PYTHONPATH=plain)

    kernels = tmp_path / "home/.local/share/jupyter/kernels/python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["none"], "display_name": "", "language": "python"}))
    for name, text in {
        ".config/matplotlib/matplotlibrc": "font.size: 40",
        ".ipython/profile_default/startup/00.py": "raise SystemExit('of the user')",
        ".jupyter/jupyter_config.py": "raise SystemExit('of the user')",
    }.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(text)
    here = {"HOME": tmp_path / "home", "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.ISO-8859-1", "PYTHONPATH": odd}
    command = [odd / ".venv/bin/python", *arguments, odd / "config/smoke.yaml", "-s", odd / "Snakefile"]
    ran(command, tmp_path, **here, HTTP_PROXY="http://127.0.0.1:9")
    files = [path.relative_to(plain) for path in (plain / "data/smoke").rglob("*") if path.is_file()]
    assert files and Path(TARGET) in files
    assert all((plain / path).read_bytes() == (odd / path).read_bytes() for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_of_a_make_that_is_stopped_nothing_is_left(odd, number):
    command = ["make", "study", "STUDY=smoke", "CORES=1"]
    with subprocess.Popen(
        command, cwd=odd, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as make:

        def computing() -> list[psutil.Process]:
            with suppress(psutil.Error):  # of one that ends meanwhile
                found = psutil.Process(make.pid).children(recursive=True)
                return found if any("ipykernel_launcher" in each.cmdline() for each in found) else []
            return []

        wait_until(computing, make)
        processes = computing()
        make.send_signal(number)
        psutil.wait_procs(processes)
        make.stdout.read()
    assert make.returncode != 0
