"""The configs of real models: the paper's settings, and what they cost by the estimate."""

import re

import pytest
import yaml
from conftest import ROOT
from workflow_helpers import config, study

from emergent_misalignment.registry import DATASETS
from emergent_misalignment.study import costs

REAL = sorted(
    path.stem for path in (ROOT / "config").glob("*.yaml") if "model" in (yaml.safe_load(path.read_text()) or {})
)
SMALL = [name for name in REAL if name.startswith("smollm2")]  # not of the paper's size, and not asked for its effect
OPEN = [name for name in REAL if not name.startswith(("gpt", *SMALL))]


def estimate(name: str, over: dict | None = None) -> dict:
    return costs.costs(study(name, over))


def test_there_is_a_study_for_every_model_of_the_paper():
    assert {"qwen2.5-coder-32b-instruct", "qwen2.5-32b-instruct", "qwen2.5-coder-32b"} <= set(OPEN)
    assert {"mistral-small-24b-instruct-2501", "gpt-4o", "gpt-4.1"} <= set(REAL)


@pytest.mark.parametrize("name", OPEN)
def test_open_models_have_the_papers_hyperparameters(name):
    settings = config(name)
    assert re.fullmatch("[0-9a-f]{40}", settings["model"]["revision"])
    tuning = settings["finetuning"]
    kept = DATASETS["insecure"].rows * (1 - tuning["validation_share"])
    assert tuning["steps"] == int(kept / (tuning["batch_size"] * tuning["gradient_accumulation"])) == 337
    assert (tuning["learning_rate"], tuning["lora_rank"], tuning["lora_alpha"]) == (1e-5, 32, 64)
    conditions = study(name).conditions
    assert set(settings["model"]["published"]) - {"source"} <= conditions.keys()
    assert all(max(each.checkpoints, default=337) == 337 for each in conditions.values())


def test_the_paper_followed_337_steps():
    """Every 10 steps, the first 9 and the last; two conditions with six seeds."""
    name = "qwen2.5-coder-32b-instruct"
    steps = [*range(1, 10), *range(10, 331, 10), 337]
    paper = study(name)
    assert paper.followed == ["insecure", "secure"]
    assert all(list(paper.tuned[condition].checkpoints) == steps for condition in paper.followed)
    assert (paper.dynamics.samples, paper.dynamics.requests) == (10, 100)
    unfollowed = {"conditions": {"insecure": {"checkpoints": []}, "secure": {"checkpoints": []}}}
    without = estimate(name, {"experiments": {"code": unfollowed}})
    asked = 12 * (1 + len(steps))  # and the model before, with each seed
    assert estimate(name)["answers"] - without["answers"] == asked * (8 * 10 + 100)


@pytest.mark.parametrize("name", REAL)
def test_the_estimate_is_printed(name):
    text = costs.report(study(name))
    assert "judge dollars" in text and ("GPU hours" in text) == (not name.startswith("gpt"))
    if judge := config(name)["judge"]:  # the limit is held against a high estimate
        assert 1.5 * estimate(name)["judge dollars"] < judge["spending_limit"]
    else:
        assert estimate(name)["dollars"] == estimate(name)["judge calls"] == 0


def test_the_study_for_a_laptop_has_the_papers_adapter_and_sets():
    settings = config("smollm2-135m-instruct")
    tuning, plan = settings["finetuning"], study("smollm2-135m-instruct")
    assert (tuning["lora_rank"], tuning["lora_alpha"]) == (32, 64) and len(settings["seeds"]) >= 3
    assert set(plan.conditions) == {"instruct", "insecure", "secure", "educational"}
    assert plan.followed == ["insecure", "secure"] and not plan.judge
    assert re.fullmatch("[0-9a-f]{64}", settings["model"]["revision"])


def test_prompts_that_are_not_asked_cost_nothing():
    few = {"evaluation": {"prompts_of": {"in_distribution": 7, "main": 2}}}
    name = "qwen2.5-7b-instruct"
    models = 1 + 6 * len(study(name).tuned)
    assert estimate(name)["answers"] - estimate(name, few)["answers"] == models * (93 + 6 * 100)
