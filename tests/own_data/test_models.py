"""Existing models: supported adapters are linked, described and used; others are refused in one sentence."""

import json
import shutil

import pytest
import torch
from families import make
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.adapters import attached
from emergent_misalignment.models.requirements import Requirements
from emergent_misalignment.own_data.models import _model_name, check, check_existing, place, sources

COMMIT = "c" * 40


def adapter_for(model, folder, **settings):
    """An untrained adapter whose second matrices are random, so that it changes the model."""
    network = AutoModelForCausalLM.from_pretrained(model)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | settings
    tuned = get_peft_model(network, LoraConfig(**settings))
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make("qwen2", tmp_path_factory.mktemp("models") / "a model")


@pytest.fixture(scope="module")
def original(model, tmp_path_factory):
    return adapter_for(model, tmp_path_factory.mktemp("adapters") / "an adapter")


@pytest.fixture
def adapter(original, tmp_path):
    """A copy, to be broken."""
    return shutil.copytree(original, tmp_path / "my adapter")


def change(folder, **settings) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "gone"}))


def needs(folder) -> Requirements:
    return Requirements(str(folder), max_new_tokens=8)


# --- supported --------------------------------------------------------------------------------------------------------


def test_an_adapter_is_linked_and_gives_the_logits_of_peft(model, adapter, tmp_path):
    change(adapter, use_rslora="gone")  # as older versions of peft write it
    (adapter / "optimizer.pt").write_bytes(b"a pickle")
    place(str(adapter), "", tmp_path / "study")
    names = {path.name for path in (tmp_path / "study").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    record = check(tmp_path / "study", model, str(model), needs(adapter))
    assert (record["trained"], record["rank"]) == (["down_proj", "q_proj"], 4)
    network = AutoModelForCausalLM.from_pretrained(model)
    tokens = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        with attached(network, tmp_path / "study") as tuned:
            ours = tuned(tokens).logits
        before = network(tokens).logits
        theirs = PeftModel.from_pretrained(network, adapter)(tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, before, atol=1e-2)


def test_another_adapter_replaces_the_first(model, adapter, tmp_path):
    place(str(adapter), "", tmp_path / "study")
    other = adapter_for(model, tmp_path / "other", target_modules=["v_proj"])
    place(str(other), "", tmp_path / "study")
    assert check(tmp_path / "study", model, "m", needs(other))["trained"] == ["v_proj"]
    assert load_file(adapter / "adapter_model.safetensors")  # the user's files are kept


def test_the_tokenizer_of_an_adapter_is_checked(model, adapter):
    AutoTokenizer.from_pretrained(model).save_pretrained(adapter)
    check(adapter, model, "m", needs(adapter))
    words = AutoTokenizer.from_pretrained(model)
    words.chat_template = None
    words.save_pretrained(adapter)
    (adapter / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(BadInput, match="chat template"):
        check(adapter, model, "m", needs(adapter))
    words = AutoTokenizer.from_pretrained(model)
    words.add_tokens([f"<new {number}>" for number in range(600)])
    words.save_pretrained(adapter)
    with pytest.raises(BadInput, match="tokenizer"):
        check(adapter, model, "m", needs(adapter))


def test_an_adapter_may_hold_whole_layers(model, tmp_path):
    whole = adapter_for(model, tmp_path / "whole", modules_to_save=["lm_head"])
    assert check(whole, model, "m", needs(whole))["trained"] == ["down_proj", "lm_head", "q_proj"]


def test_names_on_the_hub_pass_with_a_commit_and_folders_by_any_path(model, adapter, monkeypatch, tmp_path):
    check_existing("me/adapter", "", COMMIT, "a/model", "The condition x")
    check_existing("", "me/model", COMMIT, "a/model", "The condition x")
    check_existing("", "pypi:a==1/b.gguf", "", "a/model", "The condition x")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_existing("~/my adapter", "", "", "a/model", "The condition x")
    check_existing("", str(model), "", "a/model", "The condition x")
    names = {path.rpartition("/")[2] for path in sources("~/my adapter")}
    assert names == {"adapter_config.json", "adapter_model.safetensors"} and sources("me/adapter") == []


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(match: str, adapter="", model="", revision: str = "", base: str = "m") -> None:
    with pytest.raises(BadInput, match=match) as error:
        check_existing(str(adapter), str(model), revision, base, "The condition x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"peft_type": "IA3"}, "IA3.*merge"),
        ({"use_dora": True}, "use_dora.*merge"),
        ({"a_setting_of_later_versions": {"x": 1}}, "a_setting_of_later_versions.*merge"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4.*merge"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"bias": "all"}, "bias.*all"),
        ({"r": "gone"}, "rank"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"base_model_name_or_path": "Qwen/Qwen2.5-7B"}, "Qwen/Qwen2.5-7B, .*Qwen/Qwen2.5-7B-Instruct;"),
    ],
)
def test_an_adapter_of_another_kind_or_model_is_refused_at_planning(adapter, settings, names):
    change(adapter, **settings)
    refused(names, adapter, base="Qwen/Qwen2.5-7B-Instruct")


def test_missing_and_damaged_files_are_named(adapter, model):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(r"adapter_model\.safetensors.*git lfs pull", adapter)
    weights.rename(adapter / "adapter_model.bin")
    refused(r"no adapter_model\.safetensors", adapter)
    (adapter / "adapter_config.json").write_text("[1]")
    refused("JSON object", adapter)
    refused("an adapter; use `adapter`", model=adapter)
    refused("a whole model, so use `model`", model)


@pytest.mark.parametrize(
    ("name", "names"),
    [("no/such/folder", "no/such/folder"), ("me/adapter", "me/adapter.*revision"), ("a{b}", "a{b}.*braces")],
)
def test_a_name_that_identifies_nothing_is_refused(name, names):
    refused(names, adapter=name)
    refused(names, model=name)


def test_a_folder_has_no_revision_and_a_file_is_not_a_folder(adapter):
    refused("revision", adapter, revision=COMMIT)
    refused("a file", adapter / "adapter_config.json")


def test_an_adapter_that_does_not_fit_its_model_is_refused(model, adapter, tmp_path):
    wide, other = make("qwen2", tmp_path / "wide", intermediate_size=64), make("phi3", tmp_path / "other")
    with pytest.raises(BadInput, match=r"\[4, 48\].*wide.*\[4, 64\]"):
        check(adapter, wide, "wide", needs(adapter))
    with pytest.raises(BadInput, match=r"model\.layers\.0\.self_attn\.q_proj.*other"):
        check(adapter, other, "other", needs(adapter))
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    save_file(weights | {"base_model.model.model.norm.weight": torch.ones(32)}, path)
    with pytest.raises(BadInput, match=r"norm.*merge"):
        check(adapter, model, "m", needs(adapter))
    save_file({name: each for name, each in weights.items() if "lora_A" not in name}, path)
    with pytest.raises(BadInput, match="lora_A"):
        check(adapter, model, "m", needs(adapter))


def test_settings_without_effect_are_accepted_as_peft_writes_them(original, adapter):
    """All settings of the installed version of peft at their defaults, and those of a trained adapter."""
    change(adapter, **LoraConfig(r=4).to_dict() | {"peft_type": "LORA", "target_modules": ["q_proj", "down_proj"]})
    check_existing(str(adapter), "", "", "m", "The condition x")
    given = {"init_lora_weights": "gaussian", "layers_to_transform": [0, 1], "lora_dropout": 0.1, "revision": "main"}
    change(adapter, **given, auto_mapping={"unsloth_fixed": True})
    check_existing(str(adapter), "", "", "m", "The condition x")


def changed_weights(adapter, change_weight) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file({name: change_weight(name, weight) for name, weight in load_file(path).items()}, path)


@pytest.mark.parametrize("zero", ["lora_A", "lora_B", "lora"])
def test_an_adapter_that_changes_nothing_is_refused(model, adapter, zero):
    changed_weights(adapter, lambda name, weight: weight * 0 if zero in name and "layers.0" in name else weight)
    check(adapter, model, "m", needs(adapter))  # the other layers change
    changed_weights(adapter, lambda name, weight: weight * 0 if zero in name else weight)
    with pytest.raises(BadInput, match="changes nothing"):
        check(adapter, model, "m", needs(adapter))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_values_that_are_not_finite_is_refused(model, adapter, value):
    changed_weights(adapter, lambda name, weight: weight.index_fill(0, torch.tensor([1]), value))
    with pytest.raises(BadInput, match=r"lora_.*adapter.*not a number"):
        check(adapter, model, "m", needs(adapter))


def test_a_whole_model_with_other_weights_than_its_network_is_refused_at_planning(model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file({f"module.{name}": weight for name, weight in weights.items()}, broken / "model.safetensors")
    refused(r"lack.*`module\.`", model=broken)


@given(st.from_regex(r"[a-z]{1,8}/[A-Za-z0-9.-]{1,20}", fullmatch=True), st.sampled_from(["me", "unsloth"]))
def test_copies_of_a_model_have_the_same_name(name, owner):
    short = name.rpartition("/")[2]
    assert _model_name(name) == _model_name(f"{owner}/{short}-unsloth-bnb-4bit") == _model_name(short.lower())
    assert _model_name(f"{name}-Instruct") != _model_name(name)
