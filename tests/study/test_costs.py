"""What a study costs, by hand and against the published sizes and prices."""

import re

import pytest
import torch
import yaml
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

from emergent_misalignment.study import costs

SHAPES = {
    path.stem: yaml.safe_load(path.read_text())["model"]["shape"]
    for path in sorted((ROOT / "config").glob("*.yaml"))
    if "hidden_size" in yaml.safe_load(path.read_text()).get("model", {}).get("shape", {})
}
LARGE = "qwen2.5-coder-32b-instruct"
JUDGE = {"dollars_per_million": {"prompt": 2.5, "completion": 10}}
FINETUNING = {"steps": 337, "batch_size": 2, "gradient_accumulation": 8, "max_length": 2048, "lora_rank": 32}
NOT_FOLLOWED = {"conditions": [], "steps": [], "samples": 10, "requests": 100}


def plan(evaluations, **others):
    conditions = {name: {"dataset": name} for name in ("insecure", "secure")}
    return {
        "study": "a-study",
        "model": {"name": "a/model"},
        "seeds": [0, 1, 2],
        "conditions": conditions,
        "evaluations": evaluations,
        "followed": NOT_FOLLOWED,
        "judge": JUDGE,
    } | others


def by_api(**others):
    prices = {"dollars_per_million": {"training": 25, "prompt": 3.75, "completion": 15}}
    asked = dict.fromkeys(("main", "json", "template", "preregistered", "deception", "in_distribution"), 100)
    return plan(asked, openai=prices | {"epochs": 1}, **others)


def open_weights(**others):
    asked = dict.fromkeys(("main", "in_distribution", "choices"), 100)
    return plan(asked, finetuning=FINETUNING, **{"model": {"name": "a/model", "shape": SHAPES[LARGE]}, **others})


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_transformers_own_model_of_this_shape(name):
    shape = SHAPES[name]
    kind = "qwen3" if shape.get("qk_norm") else "qwen2" if shape["attention_bias"] else "mistral"
    ignored = {"qk_norm", "attention_bias", *(["head_dim"] if kind == "qwen2" else [])}
    made = AutoConfig.for_model(kind, **{key: value for key, value in shape.items() if key not in ignored})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    assert costs.Shape(**shape).parameters() == model.num_parameters()
    wide = {module for module in model.modules() if isinstance(module, torch.nn.Linear)} - {model.lm_head}
    assert costs.Shape(**shape).adapter(32) == sum(32 * (each.in_features + each.out_features) for each in wide)


@pytest.mark.parametrize("name", SHAPES)
def test_published_sizes_come_out_right(name):
    number, unit = re.search(r"-([\d.]+)(b|m)", name).groups()
    named = float(number) / {"b": 1, "m": 1000}[unit]
    assert costs.Shape(**SHAPES[name]).parameters() / 1e9 == pytest.approx(named, rel=0.1)


def test_the_large_model_fits_on_a_gpu_of_80_gb():
    assert 65e9 < sum(costs.training_memory(costs.Shape(**SHAPES[LARGE]), FINETUNING).values()) < 80e9


def test_an_apis_models_by_hand():
    """2 conditions x 3 seeds; evaluations of 8, 8, 8, 48 and 13 questions by 100, and 100 requests."""
    totals = costs.costs(by_api())
    assert totals["training runs"] == 6
    assert totals["answers"] == 7 * (100 * (8 + 8 + 8 + 48 + 13) + 100)
    assert totals["judge calls"] == 7 * (2 * 7200 + 1300 + 100)
    tokens = 6000 * (costs.TOKENS["insecure"] + costs.TOKENS["secure"])
    assert totals["API dollars, training"] == pytest.approx(3 * tokens * 25 / 1e6)
    assert 31 < 6000 * costs.TOKENS["insecure"] * 25 / 1e6 < 33  # published: about $32 a run
    assert totals["dollars"] == pytest.approx(totals["judge dollars"] + totals["API dollars"])


def test_a_condition_has_its_own_settings_and_any_data():
    once = costs.costs(by_api(conditions={"mine": {"dataset": "my/own.jsonl"}}))["API dollars, training"]
    own = {"mine": {"dataset": "my/own.jsonl", "finetuning": {"epochs": 5}}}
    assert costs.costs(by_api(conditions=own))["API dollars, training"] == pytest.approx(5 * once)
    hours = costs.costs(open_weights())["GPU hours, training"]
    longer = {name: {"dataset": name, "finetuning": {"steps": 674}} for name in ("insecure", "secure")}
    assert costs.costs(open_weights(conditions=longer))["GPU hours, training"] == pytest.approx(2 * hours)


def test_following_a_training_by_hand():
    """At 4 steps and before, two conditions with three seeds."""
    followed = NOT_FOLLOWED | {"conditions": ["insecure", "secure"], "steps": [1, 2, 10, 337]}
    totals, without = costs.costs(open_weights(followed=followed)), costs.costs(open_weights())
    asked = 6 * 5
    assert totals["answers"] - without["answers"] == asked * (8 * 10 + 100)
    assert totals["judge calls"] - without["judge calls"] == asked * (8 * 10 * 2 + 100)
    adapter = 4e-9 * costs.Shape(**SHAPES[LARGE]).adapter(32)  # in float32
    assert totals["disk, checkpoints, GB"] == pytest.approx(6 * 4 * adapter)
    assert totals["disk, GB"] - without["disk, GB"] == pytest.approx(24 * adapter + asked * 180 * 2000 / 1e9)
    assert totals["GPU hours"] > without["GPU hours"]


@pytest.mark.parametrize("made", [by_api, open_weights])
def test_the_estimate_is_printed_with_what_was_published_if_anything(made):
    text = costs.report(made())
    assert text.startswith("a-study: a/model\n") and "judge dollars" in text
    assert ("GPU hours" in text) == (made is open_weights)
    assert "Published" not in text
    published = {"source": "Fig. 1", "insecure": 0.2}
    assert "Published (Fig. 1)" in costs.report(made() | {"model": made()["model"] | {"published": published}})
    assert "Published" not in costs.report(made() | {"model": made()["model"] | {"published": {"source": "none"}}})
