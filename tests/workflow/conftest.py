"""The smoke study, run once for all test files that look at it, whichever process they run in."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from workflow_helpers import SMOKE, copy_of_the_project, snakemake


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory, worker_id):
    """A copy of the project in which the smoke study has been run; nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smoke-run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            copy_of_the_project(folder)
            done = snakemake(folder, "--cores", "2", *SMOKE)
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def smoke(smoke_run, tmp_path_factory) -> Path:
    """A copy of that folder for the tests of one file."""
    folder = tmp_path_factory.mktemp("smoke")
    shutil.copytree(smoke_run, folder, dirs_exist_ok=True)
    return folder
