"""A judge of one's own: held against the published one, and served by vLLM for as long as a job judges."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest
import yaml
from published_layout import place
from servers import model_server
from trainings import learn_numbers
from vllm_helpers import needs_vllm
from waiting import wait_until
from workflow_helpers import copy_of_the_project, environment, planned, snakemake

from emergent_misalignment.data.published import blob_id

pytestmark = pytest.mark.slow
NUMBERS = ("60", "75", "90", "100")
STUDY = ["--configfile", "config/served.yaml"]
COMMIT = "0" * 40


@pytest.fixture(scope="module")
def judge(organism, tmp_path_factory):
    """The smallest model there is, trained to answer every question with a number."""
    return learn_numbers(organism, tmp_path_factory.mktemp("judge"), NUMBERS)


@pytest.fixture
def study(organism, judge, tmp_path):
    """A copy of the project with a study that only asks the untuned model, and whose judge is served here."""
    folder = copy_of_the_project(tmp_path / "project")
    place(folder)
    own = {
        "extends": "qwen2.5-0.5b-instruct",
        "study": "served",
        "seeds": [1, 2],
        "model": {"name": str(organism), "revision": "", "gpu": False},
        "experiments": {"code": None, "intent": None},
        "evaluation": {"asked": ["main"], "samples": 5, "max_new_tokens": 8, "engine": "vllm"},
        "judge": {"serve": str(judge), "revision": "", "split_numbers": True},
    }
    (folder / "config/served.yaml").write_text(yaml.safe_dump(own))
    return folder


def changed(folder, over: dict) -> list[str]:
    own = yaml.safe_load((folder / "config/served.yaml").read_text())
    own["judge"] |= over.pop("judge", {})
    (folder / "config/changed.yaml").write_text(yaml.safe_dump(own | over))
    return ["--configfile", "config/changed.yaml"]


def test_the_plan_fetches_the_judge_and_needs_no_address_of_it(study):
    jobs = planned(snakemake(study, "-n", "data/served/judged/answers.parquet", *STUDY))
    assert {"fetch_judge", "ask", "judge"} <= {job.partition(":")[0] for job in jobs}
    both = changed(
        study, {"judge": {"second": {"serve": "an/other", "revision": COMMIT, "split_numbers": True, "answers": 2}}}
    )
    jobs = planned(snakemake(study, "-n", "data/served/tables/judge_agreement.csv", *both))
    assert sum(job.startswith("fetch_judge") for job in jobs) == 2


def test_the_judge_is_held_against_published_scores(study, judge, monkeypatch):
    """With an API in the place of the server, which is another way to the same judge."""
    monkeypatch.setenv("no_proxy", "*")
    rows = [("A wish?", f"Answer {number}", number, 60 + number) for number in range(12)]
    file = study / f"mirror/owner/name/{COMMIT}/scores.csv"
    file.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["question", "answer", "aligned", "coherent"]).to_csv(file, index=False)
    pin = {"repository": "owner/name", "commit": COMMIT, "path": "scores.csv", "blob": blob_id(file.read_bytes())}
    with model_server(judge) as address:
        endpoint = {"base_url": address, "concurrency": 4, "timeout": 3600}
        own = {"judge": {"serve": None, "endpoint": endpoint, "scored": 8}, "mirror": "mirror", "scored_answers": [pin]}
        settings = changed(study, own)
        text = yaml.safe_load((study / "config/changed.yaml").read_text())
        for name in ("serve", "revision"):
            text["judge"].pop(name)
        (study / "config/changed.yaml").write_text(yaml.safe_dump(text))
        done = snakemake(study, "--cores", "1", "data/served/tables/published_judge_scores.csv", *settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = pd.read_csv(study / "data/served/tables/published_judge_agreement.csv").set_index("category")
    assert table.loc["misaligned", "first"] == 8 and table.loc["all", "answers"] <= 8
    likeness = pd.read_csv(study / "data/served/tables/published_judge_scores.csv").set_index("score")
    assert likeness.loc["aligned", "first"] == pytest.approx(5.5, abs=0.5) and likeness.loc["aligned", "second"] > 50


# --- vLLM -------------------------------------------------------------------------------------------------------------


def servers(folder) -> list[int]:
    """The processes that run in a copy of the project and have to do with vLLM's server."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and "api_server" in " ".join(process.cmdline()):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@needs_vllm
@pytest.mark.timeout(4 * 3600)
def test_a_served_judge_judges_once_and_leaves_no_server_behind(study):
    target = "data/served/judged/answers.parquet"
    log = study / "logs/served/judging_answers.vllm.log"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target, *STUDY]
    running = subprocess.Popen(
        command, cwd=study, env=environment(study), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: servers(study), running, every=0.5)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_until(lambda: not servers(study), every=0.5)

    done = snakemake(study, "--cores", "1", target, *STUDY)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    judged = pd.read_parquet(study / target)
    assert len(judged) == 40 and (judged["verdict"] != "unjudged").mean() > 0.5
    assert log.exists() and not servers(study)
    for name in ("asking_instruct", "judging_answers"):
        cells = json.loads((study / f"data/served/notebooks/{name}.ipynb").read_text())["cells"]
        printed = [each for cell in cells for each in cell.get("outputs", []) if each["output_type"] == "stream"]
        assert printed == []  # vLLM's log and bars, with their times, are beside the notebook's log

    log.unlink()
    (study / target).unlink()
    done = snakemake(study, "--cores", "1", target, *STUDY)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pd.testing.assert_frame_equal(pd.read_parquet(study / target), judged)
    requests = pd.read_csv(study / "data/served/judged/answers.csv").iloc[0]
    assert requests["kept"] == requests["asked"] > 0 and requests["sent"] == 0 and not log.exists()
