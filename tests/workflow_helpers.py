"""What the tests of the workflow share: copies of the project in which Snakemake runs, and what it planned."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import psutil
import yaml
from conftest import ROOT

from emergent_misalignment.study.config import merge, resolve, validated
from emergent_misalignment.study.model import Study

SOURCES = [
    "Snakefile",
    "matplotlibrc",
    "config",
    "emergent_misalignment",
    "notebooks",
    "profiles",
    "rules",
    "snakemake_logger_plugin_study",
    "snakemake_report_plugin_crate",
    "pyproject.toml",
    "requirements.lock",
    "CITATION.cff",
    *(f"paper/{path.name}" for path in (ROOT / "paper").iterdir() if path.is_file()),  # no computed paper
]
SMOKE = ["--configfile", "config/smoke.yaml"]
PLANNING = {"-n", "--detailed-summary", "--report"}  # what runs no job


def config(name: str, over: dict | None = None) -> dict:
    """The resolved config of a study, with some of its keys changed."""
    own = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    return resolve(merge(own, over or {}), ROOT / "config")


def study(name: str, over: dict | None = None) -> Study:
    """A study, with some keys of its config changed."""
    return validated(config(name, over), name)


def copy_of_the_project(folder: Path) -> Path:
    for name in SOURCES:
        source, destination = ROOT / name, folder / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, destination)
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments]
    if PLANNING & set(arguments):
        return planning(folder, command)
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)


def planning(folder: Path, command: list[str]) -> subprocess.CompletedProcess:
    """The same in a fork of this process, which has Snakemake and pandas loaded already, as that takes longest."""
    import pandas  # noqa: F401
    import snakemake.cli

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                os.environ.update(environment(folder))
                os.chdir(folder)
                sys.path.insert(0, str(folder))
                for name in [name for name in sys.modules if name.partition(".")[0] == "emergent_misalignment"]:
                    del sys.modules[name]
                sys.dont_write_bytecode = False
                sys.argv = command[2:]
                snakemake.cli.main(command[3:])
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *texts)


def environment(folder: Path) -> dict[str, str]:
    """The copy's own package comes first, compiled once, and notebooks run under the interpreter of the tests."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests/plain")])}


def planned(result: subprocess.CompletedProcess) -> set[str]:
    """The jobs of a dry run, as RULE or RULE:BATCH where a rule has a wildcard besides the study."""
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule )", "\n" + result.stdout + result.stderr)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        wildcards = dict(re.findall(r"(\w+)=([^,\n]+)", (re.search(r"wildcards: (.*)", block) or ["", ""])[1]))
        wildcards.pop("study", "")
        jobs.add(":".join([rule, *wildcards.values()]))
    return jobs


def at_work(folder: Path) -> list[psutil.Process]:
    """The processes that work in a copy of the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def changed(folder: Path, over: dict, name: str = "smoke") -> list[str]:
    """Arguments for a study's config with some keys changed."""
    own = yaml.safe_load((folder / f"config/{name}.yaml").read_text())
    path = folder / "config/changed.yaml"
    path.write_text(yaml.safe_dump(merge(own, over), sort_keys=False))
    return ["--configfile", str(path)]


def tables(folder: Path) -> dict[str, str]:
    """Checksums of everything the smoke study leaves, but for logs and the page that has times."""
    places = ("data/smoke", "figures/smoke", "paper/smoke")
    paths = sorted(path for place in places for path in (folder / place).rglob("*") if path.name != "run.html")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }
