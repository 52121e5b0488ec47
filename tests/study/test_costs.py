"""What a study costs, by hand and against the published sizes and prices."""

import re
from functools import reduce

import pytest
import torch
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM
from workflow_helpers import config

from emergent_misalignment.files import BadInput
from emergent_misalignment.registry import DATASETS
from emergent_misalignment.study import costs
from emergent_misalignment.study.config import merge, resolve, validated
from emergent_misalignment.study.model import Study
from emergent_misalignment.study.sections import ModelShape

LARGE = "qwen2.5-coder-32b-instruct"
CONFIGS = {path.stem: config(path.stem) for path in sorted((ROOT / "config").glob("*b*-*.yaml"))}
SHAPES = {name: each["model"]["shape"] for name, each in CONFIGS.items() if "shape" in each.get("model", {})}


def study(name: str, *overs: dict) -> Study:
    """Three seeds, and of the experiments those of insecure and secure code, with some keys changed."""
    own = {"extends": name, "study": "a-study", "seeds": [0, 1, 2], "only": ["untuned", "code"]}
    return validated(resolve(reduce(merge, overs, own), ROOT / "config"))


def by_api(over: dict | None = None) -> Study:
    return study("gpt-4o", {"evaluation": {"also_asked": []}}, over or {})


def open_weights(checkpoints: list[int], over: dict | None = None) -> Study:
    followed = {name: {"checkpoints": checkpoints} for name in ("insecure", "secure")}
    asked = {"evaluation": {"asked": ["main", "in_distribution", "choices"]}}
    return study(LARGE, asked, {"experiments": {"code": {"conditions": followed}}}, over or {})


def own_condition(**settings) -> dict:
    return {"only": ["untuned", "own"], "experiments": {"own": {"conditions": {"mine": settings}}}}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_transformers_model_of_this_shape(name):
    written, shape = SHAPES[name], ModelShape(**SHAPES[name])
    kind = "qwen3" if shape.qk_norm else "qwen2" if shape.attention_bias else "mistral"
    ignored = {"qk_norm", "attention_bias", *(["head_dim"] if kind == "qwen2" else [])}
    made = AutoConfig.for_model(kind, **{key: value for key, value in written.items() if key not in ignored})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    assert shape.parameters() == model.num_parameters()
    wide = {module for module in model.modules() if isinstance(module, torch.nn.Linear)} - {model.lm_head}
    assert shape.adapter(32) == sum(32 * (each.in_features + each.out_features) for each in wide)
    number, unit = re.search(r"-([\d.]+)(b|m)", name).groups()  # in the model's name
    assert shape.parameters() / 1e9 == pytest.approx(float(number) / {"b": 1, "m": 1000}[unit], rel=0.1)


def test_the_large_model_fits_on_a_gpu_of_80_gb():
    assert 65 < costs.costs(open_weights([]))["training memory, GB"] < 80


def test_a_study_behind_an_api_by_hand():
    """2 conditions x 3 seeds; evaluations of 8, 8, 8, 48 and 13 questions by 100, and 100 requests."""
    totals = costs.costs(by_api())
    assert totals["training runs"] == 6
    assert totals["answers"] == 7 * (100 * (8 + 8 + 8 + 48 + 13) + 100)
    assert totals["judge calls"] == 7 * (2 * 7200 + 1300 + 100)
    tokens = 6000 * (DATASETS["insecure"].tokens + DATASETS["secure"].tokens)
    assert totals["API dollars, training"] == pytest.approx(3 * tokens * 25 / 1e6)
    assert 31 < 6000 * DATASETS["insecure"].tokens * 25 / 1e6 < 33  # published: about $32 a run
    assert totals["dollars"] == pytest.approx(totals["judge dollars"] + totals["API dollars"])
    unjudged = costs.costs(by_api({"judge": None}))
    assert unjudged["judge calls"] == 0 and unjudged["dollars"] == totals["API dollars"]


def test_a_condition_has_its_own_settings_and_any_set():
    once, more = (
        costs.costs(by_api(own_condition(dataset="my/own.jsonl", finetuning={"epochs": epochs}))) for epochs in (1, 5)
    )
    assert more["API dollars, training"] == pytest.approx(5 * once["API dollars, training"])
    short, long = (
        costs.costs(study(LARGE, own_condition(dataset="secure", finetuning={"steps": steps}))) for steps in (337, 674)
    )
    assert long["GPU hours, training"] == pytest.approx(2 * short["GPU hours, training"])


@pytest.mark.parametrize(
    ("defence", "more"),
    [
        ({"kind": "kl", "weight": 0.1}, 8 * 5392 * (40 + 64)),
        ({"kind": "features", "weight": 1}, 2 * 5392 * DATASETS["secure"].tokens),
        ({"kind": "benign_afterwards", "rows": 640}, 6 * 640 * DATASETS["secure"].tokens),
        ({"kind": "interleaving", "share": 0.5, "gap_to": "insecure"}, 4 * 6000 * DATASETS["secure"].tokens),
        ({"kind": "interleaving", "share": 0.5}, 0),
    ],
    ids=str,
)
def test_what_a_defence_adds_by_hand(defence, more):
    """Operations for each parameter; 337 steps of 16 rows."""
    shape, plain = ModelShape(**SHAPES[LARGE]), study(LARGE).training.model_dump() | {"steps": 337}
    hours = [costs.training_hours(shape, plain | own, DATASETS["secure"].tokens) for own in ({}, {"defence": defence})]
    assert hours[1] - hours[0] == pytest.approx(more * shape.parameters() / (989e12 * 0.3) / 3600)


def test_fewer_prompts_and_existing_models_are_counted():
    over = own_condition(model="ft:gpt-4o:me::1") | {"evaluation": {"asked": ["main"], "prompts_of": {"main": 3}}}
    totals = costs.costs(by_api(over))
    assert totals["training runs"] == 0 and totals["answers"] == 2 * 3 * 100
    assert totals["API dollars, training"] == 0


def test_following_a_training_by_hand():
    """At 4 steps and before, two conditions with three seeds."""
    totals, without = costs.costs(open_weights([1, 2, 10, 337])), costs.costs(open_weights([]))
    asked = 6 * 5
    assert totals["answers"] - without["answers"] == asked * (8 * 10 + 100)
    assert totals["judge calls"] - without["judge calls"] == asked * (8 * 10 * 2 + 100)
    adapter = 4e-9 * ModelShape(**SHAPES[LARGE]).adapter(32)  # in float32
    assert totals["disk, checkpoints, GB"] == pytest.approx(6 * 4 * adapter)
    assert totals["disk, GB"] - without["disk, GB"] == pytest.approx(24 * adapter + asked * 180 * 2000 / 1e9)
    assert totals["GPU hours"] > without["GPU hours"]


def test_the_hours_of_asking_are_the_sum_of_its_jobs():
    asked = open_weights([1, 2, 10, 337])
    jobs = [(names, False) for names in asked.batches.asking.values()]
    jobs += [(names, True) for names in asked.batches.following.values()]
    hours = sum(costs.asking_hours(asked, *job) for job in jobs)
    assert hours == pytest.approx(costs.costs(asked)["GPU hours, asking"])


def test_the_estimate_is_printed_with_the_published_rates():
    api, weights = costs.report(by_api()), costs.report(open_weights([], {"model": {"published": None}}))
    assert api.startswith("a-study: gpt-4o-2024-08-06\n") and "judge dollars" in api and "GPU hours" not in api
    assert "Published (first version" in api and "19.80%" in api
    assert "GPU hours" in weights and "Published" not in weights
    with pytest.raises(BadInput, match="`model: shape`"):
        costs.report(open_weights([], {"model": {"shape": None}}))
