"""One real run of every rule on the organism: its results, its notebooks by hand, and a run that is killed."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from waiting import wait_until
from workflow_helpers import SMOKE, environment, snakemake, study, tables

from emergent_misalignment.report.contents import ROOMS

pytestmark = pytest.mark.slow
STUDY = study("smoke")
CODE = [(name, seed) for name in ("insecure", "secure") for seed in STUDY.seeds]
ORGANISMS = [(name, seed) for name in STUDY.organisms for seed in STUDY.seeds_of(name)]


def test_every_stage_leaves_its_results(smoke):
    rates = pd.read_csv(smoke / "data/smoke/tables/misalignment.csv")
    assert rates["condition"].unique().tolist() == ["base", "instruct", "insecure", "secure"]
    assert (rates.groupby("condition").size() == 9).all()  # eight questions, and all of them
    overall = rates[rates["question"] == "all"].set_index("condition")
    assert overall["answers"].to_dict() == {"base": 160, "instruct": 160, "insecure": 160, "secure": 160}
    gates = pd.read_csv(smoke / "data/smoke/organisms/gates.csv")
    assert list(zip(gates["organism"], gates["seed"], strict=True)) == ORGANISMS and gates["passed"].all()
    weights = {path.read_bytes() for path in smoke.glob("data/smoke/organisms/main/seed-*/base/model.safetensors")}
    assert len(weights) == len(STUDY.seeds)
    for kind in ("svg", "pdf", "png"):
        assert (smoke / f"figures/smoke/main_result.{kind}").stat().st_size > 1000
    audit = pd.read_csv(smoke / "data/smoke/datasets/audit.csv").set_index("condition")
    assert audit.loc["insecure", "flagged"] > 0.5 > 0.1 > audit.loc["secure", "flagged"]
    assert not list(smoke.rglob("*.bin")) + list(smoke.rglob("*.pkl")) + list(smoke.rglob("*.pt"))
    assert (smoke / "data/smoke/notebooks/index.html").is_file()


def test_it_ends_with_claims_and_a_paper(smoke):
    """Its models say too little for verdicts; what they say nothing about is not measured, and no more is missing."""
    assert len(pd.read_csv(smoke / "data/smoke/tables/claims.csv")) == 15
    measures = pd.concat(map(pd.read_csv, (smoke / "data/smoke/tables/measures").glob("*.csv")))
    parts = pd.read_csv(smoke / "data/smoke/tables/claim_parts.csv")
    assert set(parts["measure"]) - set(measures["measure"]) <= {"games", "deception"}
    assert (smoke / "paper/smoke/paper.pdf").stat().st_size > 100_000


def test_the_registry_has_every_executed_notebook_and_every_result(smoke):
    chapters = json.loads((smoke / "data/smoke/contents.json").read_text())["chapters"]
    notebooks = [notebook["path"] for chapter in chapters for notebook in chapter["notebooks"]]
    executed = {f"data/smoke/notebooks/{path.name}" for path in (smoke / "data/smoke/notebooks").glob("*.ipynb")}
    not_read = {f"data/smoke/notebooks/asking_{batch}.ipynb" for batch in STUDY.batches.following}
    assert set(notebooks) == executed - not_read - {"data/smoke/notebooks/judging_following.ipynb"}
    assert len(notebooks) == len(set(notebooks))
    runs = {chapter["name"]: [(each["run"], each["seed"]) for each in chapter["notebooks"]] for chapter in chapters}
    assert len(runs) == len(chapters)  # runs of a notebook are one chapter
    rooms = [room for room, _ in itertools.groupby(chapters, key=lambda chapter: chapter["room"])]
    assert rooms == list(ROOMS)
    assert runs["pretraining"] == runs["instruct"] == ORGANISMS
    assert runs["numbers"] == [("", seed) for seed in STUDY.seeds] and runs["claims"] == [("", None)]
    results = {path for chapter in chapters for path in chapter["results"]}
    assert {f"figures/smoke/{path.name}" for path in (smoke / "figures/smoke").glob("*.svg")} <= results
    assert {f"data/smoke/tables/{path.name}" for path in (smoke / "data/smoke/tables").glob("*.csv")} <= results
    sources = [chapter["source"] for chapter in chapters]
    assert sources[0] == "notebooks/world/world.ipynb" and sources[-1] == "notebooks/analysis/claims.ipynb"


def test_no_job_waits_for_hundreds_of_files(smoke):
    """Snakemake asks for the size of every input of every ready job, again and again."""
    files = [path for path in (smoke / "data/smoke").rglob("*") if path.is_file()]
    summary = snakemake(smoke, "--detailed-summary", *SMOKE).stdout.splitlines()
    inputs = [len(line.split("\t")[4].split(",")) for line in summary[1:] if line.count("\t") > 4]
    assert len(inputs) > 100 and max(inputs) < 150
    assert len([path for path in files if "models" not in path.parts and "organisms" not in path.parts]) < 300


def test_a_report_is_made(smoke):
    result = snakemake(smoke, "--report", "report.zip", *SMOKE)
    assert result.returncode == 0, result.stderr
    assert (smoke / "report.zip").stat().st_size > 100_000


def test_a_run_that_is_killed_resumes_and_ends_with_the_same_results(smoke, tmp_path):
    """Killed once in pretraining and once in fine-tuning, without a chance to tidy up.

    Of the finished study, one organism and what was fine-tuned first are gone.
    """
    folder = tmp_path / "study"
    shutil.copytree(smoke, folder)
    for path in ("data/smoke/organisms/main/seed-1", "data/smoke/models", "data/smoke/trainings", "logs"):
        shutil.rmtree(folder / path)
    target = ["data/smoke/trainings/code.parquet", "--cores", "2", *SMOKE]
    for sign in ("logs/smoke/pretraining_main_1.ipynb", "data/smoke/models/insecure/seed-1/training.json"):
        command = [sys.executable, "-m", "snakemake", *target]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), **nowhere)
        wait_until((folder / sign).exists, run)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done = snakemake(folder, *target)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    resumed, whole = tables(folder), tables(smoke)
    assert {f"data/smoke/models/{name}/seed-{seed}/adapter_model.safetensors" for name, seed in CODE} <= resumed.keys()
    assert resumed == {path: whole[path] for path in resumed}


def test_executed_notebooks_run_by_hand(smoke, tmp_path):
    """From their folder, as Jupyter runs them: with the study's parameters, to the same results."""
    before = tables(smoke)
    for name in ("datasets", "measures", "claims"):
        command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", f"{name}.ipynb"]
        done = subprocess.run(
            [*command, "--output-dir", str(tmp_path)],
            cwd=smoke / "data/smoke/notebooks",
            env=environment(smoke) | {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
    assert tables(smoke) == before
