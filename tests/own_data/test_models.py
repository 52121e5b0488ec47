"""Models that are given: what fits is linked, described and asked; what does not is one sentence."""

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
from emergent_misalignment.own_data.models import _model_name, check, check_given, place, sources

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


# --- what can be asked ------------------------------------------------------------------------------------------------


def test_an_adapter_is_linked_checked_and_asked_as_peft_has_it(model, adapter, tmp_path):
    change(adapter, use_rslora="gone")  # as older versions of peft write it
    (adapter / "optimizer.pt").write_bytes(b"a pickle")
    place(str(adapter), "", tmp_path / "study")
    assert {path.name for path in (tmp_path / "study").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
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


def test_an_adapter_that_took_the_place_of_another_is_linked_anew(model, adapter, tmp_path):
    place(str(adapter), "", tmp_path / "study")
    other = adapter_for(model, tmp_path / "other", target_modules=["v_proj"])
    place(str(other), "", tmp_path / "study")
    assert check(tmp_path / "study", model, "m", needs(other))["trained"] == ["v_proj"]
    assert load_file(adapter / "adapter_model.safetensors")  # which is still there


def test_its_own_tokenizer_is_what_is_looked_at(model, adapter):
    AutoTokenizer.from_pretrained(model).save_pretrained(adapter)
    check(adapter, model, "m", needs(adapter))
    words = AutoTokenizer.from_pretrained(model)
    words.chat_template = None
    words.save_pretrained(adapter)
    (adapter / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(BadInput, match="has no chat template"):
        check(adapter, model, "m", needs(adapter))
    words = AutoTokenizer.from_pretrained(model)
    words.add_tokens([f"<new {number}>" for number in range(600)])
    words.save_pretrained(adapter)
    with pytest.raises(BadInput, match="The tokenizer of "):
        check(adapter, model, "m", needs(adapter))


def test_layers_that_an_adapter_brings_whole_are_the_models(model, tmp_path):
    whole = adapter_for(model, tmp_path / "whole", modules_to_save=["lm_head"])
    assert check(whole, model, "m", needs(whole))["trained"] == ["down_proj", "lm_head", "q_proj"]


def test_what_lies_on_the_hub_passes_with_its_commit():
    check_given("me/adapter", "", COMMIT, "a/model", "The condition x")
    check_given("", "me/model", COMMIT, "a/model", "The condition x")
    check_given("", "pypi:a==1/b.gguf", "", "a/model", "The condition x")


def test_a_folder_is_a_folder_by_whatever_path(model, adapter, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    check_given("~/my adapter", "", "", "a/model", "The condition x")
    check_given("", str(model), "", "a/model", "The condition x")
    names = {path.rpartition("/")[2] for path in sources("~/my adapter")}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert sources("me/adapter") == []


# --- what cannot ------------------------------------------------------------------------------------------------------

BROKEN = [
    ({"peft_type": "IA3"}, "is no LoRA adapter (IA3); merge it"),
    ({"use_dora": True}, "has DoRA, which is not read here; merge it"),
    ({"rank_pattern": {"q_proj": 8}}, "layers of other ranks"),
    ({"alpha_pattern": {"q_proj": 8}}, "layers of other scales"),
    ({"bias": "all"}, "has biases"),
    ({"r": "gone"}, "has no rank"),
    (
        {"base_model_name_or_path": "Qwen/Qwen2.5-7B"},
        "was made for Qwen/Qwen2.5-7B, and the study's model is Qwen/Qwen2.5",
    ),
]


@pytest.mark.parametrize(("settings", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_an_adapter_of_another_kind_or_model_is_refused_at_planning(adapter, settings, says):
    change(adapter, **settings)
    with pytest.raises(BadInput) as error:
        check_given(str(adapter), "", "", "Qwen/Qwen2.5-7B-Instruct", "The condition x")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_missing_or_none_are_named(adapter, model):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadInput, match="Git LFS's pointer"):
        check_given(str(adapter), "", "", "m", "The condition x")
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"has no adapter_model\.safetensors; files of other formats can hold code"):
        check_given(str(adapter), "", "", "m", "The condition x")
    (adapter / "adapter_config.json").write_text("[1]")
    with pytest.raises(BadInput, match="is no JSON object"):
        check_given(str(adapter), "", "", "m", "The condition x")
    with pytest.raises(BadInput, match="which is an adapter; give it as adapter"):
        check_given("", str(adapter), "", "m", "The condition x")
    with pytest.raises(BadInput, match="it is a whole model, which is given as model"):
        check_given(str(model), "", "", "m", "The condition x")


@pytest.mark.parametrize(
    ("name", "revision", "says"),
    [
        ("no/such/folder", "", "neither an existing folder nor a valid name on the hub"),
        ("me/adapter", "", "without a revision another run may get another one"),
        ("a{b}", "", "Snakemake takes braces for wildcards"),
    ],
)
def test_a_name_of_nothing_is_refused(name, revision, says):
    for adapter, model in ((name, ""), ("", name)):
        with pytest.raises(BadInput, match=says):
            check_given(adapter, model, revision, "a/model", "The condition x")


def test_a_folder_has_no_revision_and_a_file_is_no_folder(adapter):
    with pytest.raises(BadInput, match="is a folder, which has none"):
        check_given(str(adapter), "", COMMIT, "m", "The condition x")
    with pytest.raises(BadInput, match="which is a file; give the folder"):
        check_given(str(adapter / "adapter_config.json"), "", "", "m", "The condition x")


def test_an_adapter_of_another_shape_or_family_is_refused_beside_its_model(adapter, tmp_path):
    wide = make("qwen2", tmp_path / "wide", intermediate_size=64)
    with pytest.raises(
        BadInput, match=r"of the shape \[4, 48\], and wide needs \[4, 64\]; it is an adapter of another"
    ):
        check(adapter, wide, "wide", needs(adapter))
    other = make("phi3", tmp_path / "other")
    with pytest.raises(BadInput, match=r"changes model\.layers\.0\.self_attn\.q_proj, which other does not have"):
        check(adapter, other, "other", needs(adapter))


def test_what_is_no_matrix_of_a_layer_is_refused(adapter, model):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    save_file(weights | {"base_model.model.model.norm.weight": torch.ones(32)}, path)
    with pytest.raises(BadInput, match="which is no LoRA matrix of a linear layer; merge it"):
        check(adapter, model, "m", needs(adapter))
    save_file({name: each for name, each in weights.items() if "lora_A" not in name}, path)
    with pytest.raises(BadInput, match="without its other half"):
        check(adapter, model, "m", needs(adapter))
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read"):
        check(adapter, model, "m", needs(adapter))


@given(st.from_regex(r"[a-z]{1,8}/[A-Za-z0-9.-]{1,20}", fullmatch=True), st.sampled_from(["me", "unsloth"]))
def test_copies_of_a_model_have_its_name(name, owner):
    short = name.rpartition("/")[2]
    assert _model_name(name) == _model_name(f"{owner}/{short}-unsloth-bnb-4bit") == _model_name(short.lower())
    assert _model_name(f"{name}-Instruct") != _model_name(name)
