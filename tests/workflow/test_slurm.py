"""The Slurm profile, on a real Slurm of two nodes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil
import pytest
from conftest import ROOT
from slurm import NODES, ask, needed, two_nodes
from waiting import wait_until
from workflow_helpers import SMOKE, changed, copy_of_the_project, snakemake, tables

pytestmark = pytest.mark.slow
# A stage whose node is lost, two stages in one job that is cancelled, one that gets too little memory and then fails on
# its node, and one that fails here because it needs a network.
NUMBERS = "data/smoke/datasets/seed-1/evil_numbers.jsonl"
TARGETS = [NUMBERS, "data/smoke/datasets/secure.jsonl"]
FETCHED = "data/published/datasets/secure.jsonl"
FAILURE = "import os\n\nraise ValueError('no sets on GPU ' + os.environ.get('CUDA_VISIBLE_DEVICES', 'none'))"
# Real jobs take longer than a second, and no stage of this study asks for anything special by itself.
PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
WISHES = ["--set-resources", *(f"datasets:{wish}" for wish in ("gpu=1", "mem_mb=100*attempt**5", "runtime=20"))]
WISHES += ["--set-threads", "datasets=2"]
PRETRAIN, ORGANISM, TEXTS = "pretrain", "organism_instruct_numbers", "texts_datasets"


class Run(NamedTuple):
    """The folder in which a study was run on Slurm, what a person saw, and Slurm's own list of each stage's jobs."""

    folder: Path
    shown: str
    jobs: dict[str, list[dict[str, str]]]


def project(folder: Path) -> tuple[Path, list[str]]:
    """A copy of the project with a stage that fails, and the arguments for a part of the smoke study."""
    source = copy_of_the_project(folder) / "notebooks/world/datasets.ipynb"
    notebook = nbformat.read(source, as_version=4)
    [cell for cell in notebook.cells if cell.cell_type == "code"][-1].source = FAILURE
    nbformat.write(notebook, source)
    return folder, [*TARGETS, FETCHED, *changed(folder, {"mirror": "nowhere"})]


def jobs() -> dict[str, list[dict[str, str]]]:
    """What Slurm says of the jobs of each stage or group, in the order in which they were submitted."""
    found = {}
    for line in ask("scontrol", "show", "job", "--oneliner").splitlines():
        job = dict(re.findall(r"(\S+?)=(\S+)", line))
        if "Comment" in job:  # not yet while a job is submitted
            found.setdefault(re.sub("^rule_|_wildcards.*", "", job["Comment"]), []).append(job)
    return found


def disturb(run) -> None:
    """Take the first job's node away and give it back, and cancel the job of the next stages."""

    def first(stage):
        """The first job of a stage, once it has a node."""
        wait_until(lambda: run.done() or jobs().get(stage, [{}])[0].get("NodeList") in NODES)
        assert not run.done(), run.result().stdout + run.result().stderr
        return jobs()[stage][0]

    first(TEXTS)
    node = first(PRETRAIN)["NodeList"]
    ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    wait_until(lambda: first(PRETRAIN)["JobState"] == "NODE_FAIL")
    ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    ask("scancel", first(ORGANISM)["JobId"])


@pytest.fixture(scope="module")
def on_slurm(tmp_path_factory):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    with two_nodes(), pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setenv("STUDY_MAKE", str(os.getpid()))  # Snakemake ends with the tests
        folder, study = project(tmp_path_factory.mktemp("slurm"))
        run = pool.submit(snakemake, folder, *study, *PROFILE, *WISHES)
        disturb(run)
        done = run.result()
        return Run(folder, done.stdout + done.stderr, jobs())


def test_every_stage_is_a_job_of_slurms_or_in_one_but_for_those_that_need_a_network(on_slurm):
    assert set(on_slurm.jobs) == {PRETRAIN, ORGANISM, TEXTS}, on_slurm.shown
    assert set(re.findall(r"^localrule (\w+):", on_slurm.shown, flags=re.M)) == {"fetch"}
    submitted = re.findall(r"has been submitted with SLURM jobid (\d+)", on_slurm.shown)
    assert sorted(submitted) == sorted(job["JobId"] for each in on_slurm.jobs.values() for job in each)


def test_jobs_run_on_both_nodes(on_slurm):
    assert {job["NodeList"] for each in on_slurm.jobs.values() for job in each} == set(NODES)


def test_a_job_whose_node_is_lost_or_that_is_cancelled_or_lacks_memory_is_tried_again_with_more(on_slurm):
    attempts = {
        stage: [(job["JobState"], job["MinMemoryNode"], job["TimeLimit"]) for job in each]
        for stage, each in on_slurm.jobs.items()
    }
    assert attempts == {
        PRETRAIN: [("NODE_FAIL", "8000M", "01:00:00"), ("COMPLETED", "16000M", "02:00:00")],
        ORGANISM: [("CANCELLED", "8000M", "02:00:00"), ("COMPLETED", "16000M", "04:00:00")],
        TEXTS: [("FAILED", "100M", "00:20:00"), ("FAILED", "3200M", "00:20:00")],
    }, on_slurm.shown
    assert re.search(r"SLURM-job '\d+' failed due to a node failure", on_slurm.shown)
    assert "Error in group organism" in on_slurm.shown
    logs = [Path(log) for log in re.findall(r"log: (\S+/group_texts_datasets/\S+\.log)", on_slurm.shown)]
    assert "exceeded memory limit" in logs[0].read_text()


def test_the_results_are_those_of_a_run_without_slurm(on_slurm, smoke_run):
    here, there = tables(smoke_run), tables(on_slurm.folder)
    assert NUMBERS in there
    assert there == {path: here[path] for path in there}


def test_a_stage_that_fails_says_where_to_read_why(on_slurm):
    assert re.search(r"rule datasets:.*?log: logs/smoke/datasets\.ipynb", on_slurm.shown, flags=re.S)
    assert (on_slurm.folder / "logs/smoke/datasets.ipynb").is_file()
    said = Path(re.findall(r"log: (\S+/group_texts_datasets/\S+\.log)", on_slurm.shown)[-1]).read_text()
    assert re.search(r"notebooks/world/datasets\.ipynb, cell In \[\d+\]: ValueError: no sets on GPU", said)
    assert "Read logs/smoke/datasets.ipynb" in said
    assert "There is no file nowhere/" in on_slurm.shown  # a stage that runs here speaks for itself


def test_a_job_that_asks_for_a_gpu_sees_the_one_it_got(on_slurm):
    assert {(job["TresPerJob"], job["NumCPUs"]) for job in on_slurm.jobs[TEXTS]} == {("gres:gpu:1", "2")}
    assert "no sets on GPU 0" in (on_slurm.folder / "logs/smoke/datasets.ipynb").read_text()


@pytest.mark.skipif("CLUSTER_CHECK" not in os.environ, reason="a whole study on Slurm; `make cluster-check` runs it")
def test_a_whole_study_leaves_the_same_bytes_on_slurm(smoke_run, tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    folder = copy_of_the_project(tmp_path)
    with two_nodes(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_MAKE", str(os.getpid()))
        done = snakemake(folder, *PROFILE, *SMOKE)
        ran = jobs()
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(folder) == tables(smoke_run)
    assert {job["JobState"] for each in ran.values() for job in each} == {"COMPLETED"}
    assert {job["NodeList"] for each in ran.values() for job in each} == set(NODES)


# --- tests that are killed --------------------------------------------------------------------------------------------

KILLED = """
import os, time
from slurm import ask, two_nodes
from waiting import wait_until

with two_nodes():
    ask("sbatch", "--output=/dev/null", "--wrap", "exec sleep 86399")
    wait_until(lambda: ask("squeue", "--noheader", "--format=%T") == "RUNNING\\n")
    print(os.environ["SLURM_CONF"], flush=True)
    time.sleep(600)
"""


def at_work() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "86399"]]


def test_no_job_outlives_a_test_that_is_killed():
    needed()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    test = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    )
    folder = Path(test.stdout.readline().strip()).parent
    wait_until(at_work, test)
    test.send_signal(signal.SIGKILL)
    test.communicate()
    wait_until(lambda: not at_work())
    shutil.rmtree(folder)  # the test could not
