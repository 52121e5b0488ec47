"""The Slurm profile, on a real Slurm."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from slurm import ask, one_node
from workflow_helpers import changed, copy_of_the_project, snakemake, tables

pytestmark = pytest.mark.slow
# A chain of two stages, one that fails on its node, and one that fails here because it needs a network.
INSTRUCT = "data/smoke/organisms/main/seed-1/instruct/model.safetensors"
TARGETS = [INSTRUCT, "data/smoke/datasets/secure.jsonl"]
FETCHED = "data/published/datasets/secure.jsonl"
FAILURE = "import os\n\nraise ValueError('no sets on GPU ' + os.environ.get('CUDA_VISIBLE_DEVICES', 'none'))"
# Real jobs take longer than a second, and no stage of this study asks for anything special by itself.
PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
WISHES = ["--set-resources", *(f"datasets:{wish}" for wish in ("gpu=1", "mem_mb=3000", "runtime=20"))]
WISHES += ["--set-threads", "datasets=2"]


class Run(NamedTuple):
    """The folder in which a study was run on Slurm, what a person saw, and Slurm's own list of the jobs."""

    folder: Path
    shown: str
    jobs: dict[str, dict[str, str]]


def project(folder: Path) -> tuple[Path, list[str]]:
    """A copy of the project with a stage that fails, and the arguments for a part of the smoke study."""
    source = copy_of_the_project(folder) / "notebooks/world/datasets.ipynb"
    notebook = nbformat.read(source, as_version=4)
    [cell for cell in notebook.cells if cell.cell_type == "code"][-1].source = FAILURE
    nbformat.write(notebook, source)
    return folder, [*TARGETS, FETCHED, *changed(folder, {"mirror": "nowhere"})]


def shown(done: subprocess.CompletedProcess) -> str:
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def on_slurm(tmp_path_factory):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    with one_node():
        folder, study = project(tmp_path_factory.mktemp("slurm"))
        done = snakemake(folder, *study, *PROFILE, *WISHES)
        listed = ask("scontrol", "show", "job", "--oneliner")
    jobs = {
        rule: dict(re.findall(r"(\S+?)=(\S+)", line))
        for line in listed.splitlines()
        for rule in re.findall(r"Comment=rule_(\w+)_wildcards", line)
    }
    return Run(folder, shown(done), jobs)


def test_every_stage_is_a_job_of_slurms_but_for_those_that_need_a_network(on_slurm):
    assert set(re.findall(r"^rule (\w+):", on_slurm.shown, flags=re.M)) == set(on_slurm.jobs), on_slurm.shown
    assert set(re.findall(r"^localrule (\w+):", on_slurm.shown, flags=re.M)) == {"fetch"}
    assert {rule: job["JobState"] for rule, job in on_slurm.jobs.items()} == {
        "pretrain": "COMPLETED",
        "instruct": "COMPLETED",
        "datasets": "FAILED",
    }, on_slurm.shown
    submitted = re.findall(r"has been submitted with SLURM jobid (\d+)", on_slurm.shown)
    assert sorted(submitted) == sorted(job["JobId"] for job in on_slurm.jobs.values())


def test_a_job_gets_what_the_profile_says_or_what_is_asked_for_it(on_slurm):
    given = {
        rule: [job[key] for key in ("NumCPUs", "MinMemoryNode", "TimeLimit")] for rule, job in on_slurm.jobs.items()
    }
    assert given["pretrain"] == ["1", "8000M", "01:00:00"]
    assert given["datasets"] == ["2", "3000M", "00:20:00"]


def test_the_results_are_those_of_a_run_without_slurm(on_slurm, smoke_run):
    here, there = tables(smoke_run), tables(on_slurm.folder)
    assert INSTRUCT in there
    assert there == {path: here[path] for path in there}


def test_a_stage_that_fails_says_where_to_read_why(on_slurm):
    log = re.search(r"log: (logs/smoke/datasets\.ipynb), (\S+\.log)", on_slurm.shown)
    assert log, on_slurm.shown
    assert (on_slurm.folder / log[1]).is_file()
    said = Path(log[2]).read_text()
    assert re.search(r"notebooks/world/datasets\.ipynb, cell In \[\d+\]: ValueError: no sets on GPU", said)
    assert "Read logs/smoke/datasets.ipynb" in said
    assert "There is no file nowhere/" in on_slurm.shown  # a stage that runs here speaks for itself


def test_a_job_that_asks_for_a_gpu_sees_the_one_it_got(on_slurm):
    assert on_slurm.jobs["datasets"]["TresPerJob"] == "gres:gpu:1"
    assert "no sets on GPU 0" in (on_slurm.folder / "logs/smoke/datasets.ipynb").read_text()
