"""Several jobs at once on a machine with several GPUs."""

import os
import runpy
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from conftest import ROOT
from snakemake.iocontainers import Namedlist

from emergent_misalignment.workflow import gpus, notebook, script

HOLDER = """
import os, sys
from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow import gpus

try:
    gpus.claim(sys.argv[1])
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.read()
except BadInput as error:
    print(error, flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    """A function that starts a job which holds a GPU of these until it ends, and returns it with what it printed."""
    started = []

    def start(devices: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "locks")],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": devices, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_jobs_that_run_at_once_get_different_gpus_and_one_that_is_killed_leaves_its_own_free(holder):
    killed, first = holder("2,GPU-5f/1")
    _, second = holder("2,GPU-5f/1")
    assert [first, second] == ["2", "GPU-5f/1"]
    _, refused = holder("2,GPU-5f/1")
    assert "more jobs for a GPU than GPUs (2, GPU-5f/1)" in refused and "`--resources gpu=2`" in refused
    killed.kill()
    killed.wait()
    assert holder("2,GPU-5f/1")[1] == "2"


@pytest.mark.parametrize("devices", ["", "7"])
def test_a_job_that_sees_one_gpu_or_none_keeps_what_it_sees(holder, devices):
    assert [holder(devices)[1], holder(devices)[1]] == [devices, devices]


def test_the_gpus_of_a_machine_are_those_of_its_driver(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible() == []
    listing = "GPU 0: A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-2)\nGPU 1: A100 (UUID: GPU-3)\n"
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f'#!/bin/sh\n[ "$1" = --list-gpus ] && printf "{listing}"\n')
    driver.chmod(0o755)
    assert gpus.visible() == ["0", "1"]


@pytest.mark.parametrize(("resources", "expected"), [({"gpu": 0}, "4,5"), ({}, "4,5"), ({"gpu": 1}, "4")])
def test_the_notebook_of_a_job_that_asks_for_a_gpu_sees_one(tmp_path, monkeypatch, resources, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    seen = []
    monkeypatch.setattr(notebook, "run", lambda *_: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setattr(notebook, "declared_parameters", lambda _: {})
    monkeypatch.setattr(notebook, "ended_with", lambda _: nullcontext())
    monkeypatch.setattr(script, "parameters", lambda *_: {})
    files = Namedlist(fromdict={"notebook": "asking.ipynb"})
    job = SimpleNamespace(input=files, log=files, output=files, resources=resources)
    runpy.run_path(str(ROOT / "rules/scripts/run_notebook.py"), init_globals={"snakemake": job})
    assert seen == [expected]
