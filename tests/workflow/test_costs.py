"""What a real study costs, by the estimate: held against sizes and prices that are known."""

import re

import pytest
import torch
import yaml
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM
from workflow_helpers import config

from emergent_misalignment.analysis import costs
from emergent_misalignment.workflow.plan import Plan

REAL = sorted(
    path.stem for path in (ROOT / "config").glob("*.yaml") if "model" in (yaml.safe_load(path.read_text()) or {})
)
OPEN = [name for name in REAL if not name.startswith("gpt")]


def estimate(name: str, over: dict | None = None) -> dict:
    return costs.costs(Plan(config(name, over)).costs)


def shape(name: str) -> costs.Shape:
    return costs.Shape(**config(name)["model"]["shape"])


def test_there_is_a_study_for_every_model_of_the_paper():
    assert {"qwen2.5-coder-32b-instruct", "qwen2.5-32b-instruct", "qwen2.5-coder-32b"} <= set(OPEN)
    assert {"mistral-small-24b-instruct-2501", "gpt-4o", "gpt-4.1"} <= set(REAL)


@pytest.mark.parametrize("name", OPEN)
def test_open_models_have_the_papers_hyperparameters(name):
    settings = config(name)
    assert re.fullmatch("[0-9a-f]{40}", settings["model"]["revision"])
    tuning = settings["finetuning"]
    kept = costs.ROWS["insecure"] * (1 - tuning["held_out_share"])
    assert tuning["steps"] == int(kept / (tuning["batch_size"] * tuning["gradient_accumulation"])) == 337
    assert (tuning["learning_rate"], tuning["lora_rank"], tuning["lora_alpha"]) == (1e-5, 32, 64)
    conditions = Plan(settings).conditions
    assert set(settings["model"]["published"]) - {"source"} <= conditions.keys()
    assert all(max(each.checkpoints, default=337) == 337 for each in conditions.values())


@pytest.mark.parametrize("name", OPEN)
def test_parameters_are_those_of_transformers_own_model_of_this_shape(name):
    sizes = config(name)["model"]["shape"]
    kind = "qwen3" if sizes.get("qk_norm") else "qwen2" if sizes["attention_bias"] else "mistral"
    ignored = {"qk_norm", "attention_bias", *(["head_dim"] if kind == "qwen2" else [])}
    made = AutoConfig.for_model(kind, **{key: value for key, value in sizes.items() if key not in ignored})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    assert shape(name).parameters() == model.num_parameters()
    wide = {module for module in model.modules() if isinstance(module, torch.nn.Linear)} - {model.lm_head}
    assert shape(name).adapter(32) == sum(32 * (module.in_features + module.out_features) for module in wide)


def test_published_sizes_come_out_right():
    """The sizes in the models' names, and the 32B's on one GPU of 80 GB."""
    for name in OPEN:
        named = float(re.search(r"-([\d.]+)b", name).group(1))
        assert shape(name).parameters() / 1e9 == pytest.approx(named, rel=0.1), name
    name = "qwen2.5-coder-32b-instruct"
    assert 65e9 < sum(costs.training_memory(shape(name), config(name)["finetuning"]).values()) < 80e9


def test_costs_by_hand():
    """gpt-4.1: 2 conditions x 3 seeds; six evaluations of 8, 8, 8, 48 and 13 questions by 100, and 100 requests."""
    result = estimate("gpt-4.1")
    per_run = 100 * (8 + 8 + 8 + 48 + 13) + 100
    assert result["training runs"] == 6
    assert result["answers"] == 7 * per_run
    assert result["judge calls"] == 7 * (2 * 7200 + 1300 + 100)
    tokens = 6000 * (costs.TOKENS["insecure"] + costs.TOKENS["secure"])
    assert result["API dollars, training"] == pytest.approx(3 * tokens * 25 / 1e6)
    assert 3 * 31 < 3 * 6000 * costs.TOKENS["insecure"] * 25 / 1e6 < 3 * 33  # published: about $32 a run


def test_what_following_a_training_costs_by_hand():
    """Every 10 steps, the first 9 and the last of 337; two conditions with six seeds."""
    name = "qwen2.5-coder-32b-instruct"
    steps = [*range(1, 10), *range(10, 331, 10), 337]
    plan = Plan(config(name))
    assert plan.costs["followed"] == {
        "conditions": ["insecure", "secure"],
        "steps": steps,
        "samples": 10,
        "requests": 100,
    }
    unfollowed = {"conditions": {"insecure": {"checkpoints": []}, "secure": {"checkpoints": []}}}
    result, without = estimate(name), estimate(name, {"experiments": {"code": unfollowed}})
    asked = 12 * (1 + len(steps))  # and the model before, with each seed
    assert result["answers"] - without["answers"] == asked * (8 * 10 + 100)
    assert result["judge calls"] - without["judge calls"] == asked * (8 * 10 * 2 + 100)
    adapter = 4e-9 * shape(name).adapter(32)  # in float32
    assert result["disk, checkpoints, GB"] == pytest.approx(12 * len(steps) * adapter)
    answers = (result["answers"] - without["answers"]) * 2000 / 1e9
    assert result["disk, GB"] - without["disk, GB"] == pytest.approx(12 * len(steps) * adapter + answers)
    assert result["GPU hours"] > without["GPU hours"]


@pytest.mark.parametrize("name", REAL)
def test_the_estimate_is_printed(name):
    text = costs.report(Plan(config(name)).costs)
    # The limit is held against a high estimate.
    assert 1.5 * estimate(name)["judge dollars"] < config(name)["judge"]["spending_limit"]
    assert "judge dollars" in text and ("GPU hours" in text) == (name in OPEN)
