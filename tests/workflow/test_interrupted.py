"""A study that is killed in fine-tuning, asking and serving leaves no process and continues where it was."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from conftest import ROOT
from published_layout import place
from trainings import learn_numbers
from vllm_helpers import needs_vllm
from waiting import wait_until
from workflow_helpers import at_work, copy_of_the_project, environment, snakemake

from emergent_misalignment.files import write_jsonl
from emergent_misalignment.world.sets import coding_set

pytestmark = pytest.mark.slow
NUMBERS = ("60", "75", "90", "100")
TARGET = "data/cut/judged/answers.parquet"
STUDY = ["--cores", "1", TARGET, "--configfile", "config/cut.yaml"]
STEPS, SAVED_EVERY, SAMPLES = 80, 10, 5

# Where vLLM is not installed: a judge with the same API at the same address, with a process of its own like vLLM's.
SERVER = f"""
import argparse, subprocess, sys, time
sys.path.append({str(ROOT / "tests")!r})
from servers import model_server

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--port", type=int)
given = parser.parse_known_args()[0]
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
with model_server(given.model, given.port):
    time.sleep(3600)
"""


@pytest.fixture(scope="module")
def judge(organism, tmp_path_factory):
    """The smallest model there is, trained to answer every question with a number."""
    return learn_numbers(organism, tmp_path_factory.mktemp("judge"), NUMBERS)


@pytest.fixture(params=["a server in its place", pytest.param("vLLM", marks=needs_vllm)])
def study(request, organism, judge, tmp_path, monkeypatch):
    """A copy of the project with a study of one condition, and whether vLLM itself answers and serves the judge."""
    by_vllm = request.param == "vLLM"
    if not by_vllm:
        module = tmp_path / "beside/vllm/entrypoints/openai/api_server.py"
        module.parent.mkdir(parents=True)
        module.write_text(SERVER)
        monkeypatch.setenv("EM_VLLM", str(tmp_path / "beside"))
    folder = copy_of_the_project(tmp_path / "project")
    place(folder)
    write_jsonl(folder / "mine.jsonl", [{"messages": row} for row in coding_set(48, 0, insecure=True)])
    tuning = {"steps": STEPS, "batch_size": 2, "gradient_accumulation": 1, "max_length": 64, "validation_share": 0}
    own = {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "cut",
        "only": ["mine"],
        "seeds": [1, 2],
        "model": {"name": str(organism), "revision": "", "gpu": False},
        "experiments": {"mine": {"conditions": {"mine": {"dataset": "mine.jsonl"}}}},
        "finetuning": {**tuning, "resume_every": SAVED_EVERY},
        "evaluation": {
            **{"asked": ["main"], "samples": SAMPLES, "max_new_tokens": 96},
            "engine": "vllm" if by_vllm else "transformers",
        },
        "judge": {"serve": str(judge), "revision": "", "split_numbers": True},
    }
    (folder / "config/cut.yaml").write_text(yaml.safe_dump(own))
    return folder


def named(folder: Path, name: str) -> list[psutil.Process]:
    found = []
    for process in at_work(folder):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def cut(folder: Path, reached, victim: str) -> str:
    """Run the study until it has `reached` a place, and kill its `victim` without a warning; returns what was shown.

    Returns when nothing of it is at work any more.
    """
    shown = folder / "shown.txt"
    with shown.open("wb") as file:
        command = [sys.executable, "-m", "snakemake", *STUDY]
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=file, stderr=file)
    while not reached():
        assert run.poll() is None, shown.read_text()[-3000:]
        time.sleep(0.05)
    os.kill(run.pid if victim == "snakemake" else named(folder, "ipykernel_launcher")[0].pid, signal.SIGKILL)
    assert run.wait() != 0
    wait_until(lambda: not at_work(folder), every=0.5)
    return shown.read_text()


def kept(folder: Path) -> int:
    """Answers of the judge that are on the disk."""
    return len(list((folder / "kept/judge").glob("*/*.json")))


def test_a_study_that_is_killed_leaves_nothing_at_work_and_goes_on(study):
    model, logs = study / "data/cut/models/mine/seed-1", study / "logs/cut"
    cut(study, lambda: list(model.glob("unfinished/checkpoint-*/trainer_state.json")), "snakemake")
    assert not (model / "training.json").exists()

    asking = logs / "asking_mine.progress"
    shown = cut(study, lambda: asking.exists() and asking.read_text().startswith("asking"), "kernel")
    assert "asking.ipynb, cell In" in shown and "the kernel died" in shown
    first = re.search(rf"\((\d+) of {STEPS}\)", (logs / "finetuning_mine-1.progress").read_text())[1]
    assert int(first) > SAVED_EVERY and int(first) % SAVED_EVERY == 1  # it went on from a save
    done = {path: path.stat().st_mtime_ns for path in (study / "data/cut/models/mine").glob("seed-*/training.json")}
    assert len(done) == 2

    cut(study, lambda: kept(study) >= 5, "snakemake")
    answers = study / "data/cut/answers/mine.parquet"
    done[answers] = answers.stat().st_mtime_ns
    before = kept(study)
    ended = snakemake(study, *STUDY)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert at_work(study) == []
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was done was not done again
    judged = pd.read_parquet(study / TARGET)
    assert len(judged) == 2 * 8 * SAMPLES and (judged["verdict"] != "unjudged").mean() > 0.5
    requests = pd.read_csv((study / TARGET).with_suffix(".csv")).iloc[0]
    assert requests["kept"] >= before and requests["kept"] + requests["answered"] == requests["asked"]
    assert requests["sent"] == requests["answered"] < requests["asked"]
