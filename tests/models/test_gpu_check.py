"""`make gpu-check`: its processor part, and what it says of a check that fails."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import device_checks
import gpu_check
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import ROOT
from gpu_check import Check, Run, plan
from waiting import wait_until
from workflow_helpers import copy_of_the_project, planned, snakemake

from emergent_misalignment.models.training import finetune

TUNE, SCORE = "fine-tuning", "log-probabilities"


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """The folder and the output of the processor's part, with Unsloth and vLLM if they are installed."""
    folder = tmp_path_factory.mktemp("gpu-check")
    done = subprocess.run(
        [sys.executable, ROOT / "tests/gpu_check.py", folder],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_processors_part_needs_no_gpu(processor):
    folder, printed = processor
    assert "finds no GPU here, so only the processor's part is checked.\n" in printed
    table = pd.read_csv(folder / "gpu_check.csv", keep_default_na=False)
    assert set(table["device"]) == {"cpu"}
    results = table.set_index(["check", "engine"])["result"]
    assert results[TUNE, "transformers"] == results[SCORE, "transformers"] == "reference"
    assert results["model", ""] == results[SCORE, "peft"] == "ok"
    peft = table[table["engine"] == "peft"].iloc[0]
    assert float(peft["difference"]) < 1e-5 and float(peft["speed"]) > 0 and peft["unit"] == "tokens/s"
    skipped = table[table["result"] == "skipped"]
    assert skipped["note"].tolist() == [
        f"{name} is not installed; requirements-gpu.lock has it." for name in skipped["engine"]
    ]
    assert (folder / "gpu_check.md").read_text() in printed


@pytest.mark.slow
def test_the_reference_is_a_training_that_learns(processor):
    """And its two adapters are different models, so that an engine that ignores them is noticed."""
    work = processor[0] / "work"
    losses = json.loads((work / f"{TUNE}-tiny-transformers-cpu.json").read_text())["values"]
    assert len(losses) == device_checks.SETTINGS.steps
    assert losses[0] == pytest.approx(math.log(600), abs=0.2)  # a random model of 600 tokens
    assert losses[-1] < losses[0] - 0.3
    values = json.loads((work / f"{SCORE}-tiny-transformers-cpu.json").read_text())["values"]
    number = len(device_checks.SCORED)
    base, half, whole = (values[start : start + number] for start in range(0, 3 * number, number))
    allowed = Check(SCORE, "tiny", "vllm", "cuda").allowed
    for tuned in (half, whole):
        assert np.abs(np.subtract(tuned, base)).mean() > 3 * allowed
    assert half != whole


@pytest.mark.slow
def test_a_wrong_setting_differs_by_more_than_is_allowed(processor, tmp_path):
    """Half of the adapter's scale, one of the errors that change the losses least."""
    work = processor[0] / "work"
    losses = json.loads((work / f"{TUNE}-tiny-transformers-cpu.json").read_text())["values"]
    settings = replace(device_checks.SETTINGS, lora_alpha=device_checks.SETTINGS.lora_alpha // 2)
    wrong = finetune(work / "model-tiny", device_checks.CHATS, tmp_path, settings, 1, "transformers")
    difference = np.abs(np.subtract([step["loss"] for step in wrong], losses)).mean()
    assert difference > 1.5 * Check(TUNE, "tiny", "unsloth", "cuda").allowed


# --- comparisons ------------------------------------------------------------------------------------------------------


def outcomes(monkeypatch, tmp_path, found: list[tuple[Check, dict]]) -> list[dict]:
    """The outcomes of checks whose processes found these."""
    run, results = Run(tmp_path), dict(found)
    monkeypatch.setattr(run, "obstacle", lambda check: "")
    monkeypatch.setattr(run, "found", lambda check: dict(results[check]))
    return [run.outcome(check) for check, _ in found]


def test_each_result_is_compared_with_the_first_of_its_kind_and_model(monkeypatch, tmp_path):
    cpu, gpu, bits = (
        Check(TUNE, "m", "transformers"),
        Check(TUNE, "m", "unsloth", "cuda"),
        Check(TUNE, "m", "", "cuda", "4-bit"),
    )
    other = Check(TUNE, "other", "transformers", "cuda")
    scores = Check(SCORE, "m", "transformers")
    found = [
        (cpu, {"values": [2.0, 1.0]}),
        (gpu, {"values": [2.0, 1.04]}),
        (bits, {"values": [2.0, 0.8]}),
        (other, {"values": [9.0, 8.0]}),
        (scores, {"values": [-1.0]}),
    ]
    results = outcomes(monkeypatch, tmp_path, found)
    assert [each["result"] for each in results] == ["reference", "ok", "ok", "reference", "reference"]
    assert results[1]["difference"] == pytest.approx(0.02) and results[2]["difference"] == pytest.approx(0.1)
    found[1:3] = [(gpu, {"values": [2.1, 1.0]}), (bits, {"values": [2.0, 0.4]})]
    assert [each["result"] for each in outcomes(monkeypatch, tmp_path, found)[1:3]] == ["differs", "differs"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_a_failure_and_no_reference(monkeypatch, tmp_path, value):
    found = [
        (Check(TUNE, "m", "transformers"), {"values": [2.0, value]}),
        (Check(TUNE, "m", "unsloth"), {"values": [2.0, 1.0]}),
    ]
    assert [each["result"] for each in outcomes(monkeypatch, tmp_path, found)] == ["failed", "reference"]


# --- processes --------------------------------------------------------------------------------------------------------

PROCESS = """
import json, os, signal, subprocess, sys, time
given = json.loads(sys.argv[1])
model = given["model"]
if model == "crashes":
    os.kill(os.getpid(), signal.SIGSEGV)
if model == "hangs":
    child = subprocess.Popen(["sleep", "1000"])
    with open("child", "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)
if model == "exits":
    sys.exit(3)
with open(given["destination"], "w") as file:
    json.dump({"error": "BadInput of some kind."} if model == "fails" else {}, file)
"""


def test_a_check_that_crashes_or_hangs_does_not_stop_the_others(monkeypatch, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    monkeypatch.setattr(gpu_check, "SCRIPT", script)
    monkeypatch.setattr(
        gpu_check,
        "plan",
        lambda gpu: [Check("model", name) for name in ("crashes", "hangs", "exits", "fails", "works")],
    )
    monkeypatch.setattr(Check, "limit", property(lambda check: 5 if check.model == "hangs" else 600))
    assert gpu_check.main(tmp_path) == 1
    table = pd.read_csv(tmp_path / "gpu_check.csv").set_index("model")
    assert table["result"].to_dict() == dict.fromkeys(("crashes", "hangs", "exits", "fails"), "failed") | {
        "works": "ok"
    }
    for name, words in {
        "crashes": "ended by SIGSEGV",
        "hangs": "had not ended after 5 seconds",
        "exits": "ended with the exit status 3",
        "fails": "BadInput of some kind.",
    }.items():
        assert words in table.loc[name, "note"] and f"model-{name}-cpu.log" in table.loc[name, "note"]
    child = int((tmp_path / "work/child").read_text())
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_an_error_of_a_library_is_one_line(monkeypatch, tmp_path):
    def fails(**_):
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setitem(device_checks.CHECKS, "model", fails)
    device_checks.main("model", str(tmp_path / "result.json"), 0, model="m")
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "error": "RuntimeError: CUDA out of memory. Tried to allocate"
    }


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_gpu_gets_all_that_the_documentation_lists():
    checks = plan(gpu=True)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    on_gpu = {(check.check, check.model, check.engine, check.variant) for check in checks if check.device == "cuda"}
    for model in ("tiny", "smollm2", "qwen2-0.5b"):
        assert {(TUNE, model, engine, "") for engine in ("transformers", "unsloth")} <= on_gpu
    assert {(SCORE, model, "vllm", "") for model in ("smollm2", "qwen2-0.5b")} <= on_gpu
    assert {(TUNE, "qwen2-0.5b", engine, "4-bit") for engine in ("transformers", "unsloth")} <= on_gpu
    assert {(TUNE, "qwen2-0.5b", "transformers", "32-bit Adam"), ("study", "smollm2", "", "")} <= on_gpu
    first = {}
    for check in checks:
        first.setdefault((check.check, check.model), check)
    assert all(first[kind, model].device == "cpu" for kind in (TUNE, SCORE) for model in ("tiny", "smollm2"))
    assert not any(check.needs for check in first.values() if check.model != "smollm2")
    assert {check.device for check in plan(gpu=False)} == {"cpu"}


def test_what_is_not_installed_is_skipped_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "find_spec", lambda name: None)
    monkeypatch.setattr(gpu_check, "is_installed", lambda: False)
    run = Run(tmp_path)
    notes = {check: run.obstacle(check) for check in plan(gpu=True)}
    for check in notes:
        if check.needs:
            assert notes[check].startswith(f"{check.needs[0]} is not installed; ")
        elif check.check != "model":
            assert notes[check] == f"The model {check.model} was not made."
    assert {check.needs[0] for check in notes if check.needs} == {"unsloth", "vllm", "bitsandbytes", "gguf"}


def test_the_study_is_one_that_can_be_planned(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    device_checks.run_study(str(tmp_path / "study.yaml"))
    monkeypatch.undo()
    ((_, _, program, *arguments),) = commands
    assert program == "snakemake"
    jobs = planned(snakemake(copy_of_the_project(tmp_path / "copy"), "-n", *arguments))
    assert {"fetch_model:instruct", "finetune:insecure-0", "finetune:secure-1"} <= jobs
    assert any(job.startswith("claims") for job in jobs)
