"""Whole models are opened before anything is computed: their weights fit their network, and answers can be sampled."""

import json

import pytest
import torch
from families import VOCABULARY, make, tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.networks import check_sampling, refuse_not_finite, without_weights
from emergent_misalignment.models.requirements import Requirements, check, check_local, opened
from emergent_misalignment.models.sampling import sample

LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return make("qwen2", tmp_path / "a model")


def rewrite(folder, weights: dict) -> None:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")


def change_config(folder, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def refused(folder, match: str, **requirements) -> None:
    """By the check at planning."""
    with pytest.raises(BadInput, match=match) as error:
        check_local(Requirements(str(folder), **requirements))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


# --- weights ----------------------------------------------------------------------------------------------------------

WEIGHTS = {
    "compiled": (lambda weights: {f"_orig_mod.{key}": value for key, value in weights.items()}, r"27 .*`_orig_mod\.`"),
    "parallel": (lambda weights: {f"module.{key}": value for key, value in weights.items()}, r"27 .*`module\.`"),
    "a layer": (lambda weights: {key: value for key, value in weights.items() if ".1." not in key}, r"12 .*layers\.1"),
    "the output": (
        lambda weights: {key: value for key, value in weights.items() if key != "lm_head.weight"},
        "lm_head",
    ),
    "a shape": (lambda weights: weights | {LAYER: torch.ones(64, 32)}, rf"{LAYER}.*\[64, 32\].*\[48, 32\]"),
    "ZeRO-3": (lambda weights: dict.fromkeys(weights, torch.empty(0)), r"\[0\].*zero_to_fp32"),
    "another layer": (
        lambda weights: weights | {LAYER.replace("1", "2"): weights[LAYER] * 2},
        r"layers\.2.*config.json",
    ),
}


@pytest.mark.parametrize(("change", "match"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_the_network_are_refused(folder, change, match):
    rewrite(folder, change(load_file(folder / "model.safetensors")))
    refused(folder, match)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_weights_that_transformers_loads_are_accepted(tmp_path, name):
    """Names without the network's own prefix, tied output layers, and tensors of other parts."""
    folder = make(name, tmp_path / "a model", tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in weights
    short = {key.removeprefix("model.").removeprefix("transformer."): value for key, value in weights.items()}
    rewrite(folder, short | {"vision_tower.layers.0.weight": torch.ones(2)})
    opened(folder, "a model")
    network, _ = load(folder)
    assert torch.equal(
        network.get_input_embeddings().weight, next(v for k, v in weights.items() if "emb" in k or "wte" in k)
    )


def test_damaged_files_are_refused(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (len(whole) - 100, 500, 0):
        path.write_bytes(whole[:length])
        refused(folder, "cannot be loaded")


def test_a_shard_that_lacks_its_tensors_is_refused(folder):
    network = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="60KB")
    opened(folder, "a model")
    shards = sorted(folder.glob("*.safetensors"))
    shards[1].write_bytes(shards[0].read_bytes())
    refused(folder, "lack")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(torch.float32, float("nan")), (torch.bfloat16, float("-inf")), (torch.float16, float("inf"))],
)
def test_values_that_are_not_finite_are_refused_once_the_model_is_placed(folder, kind, value):
    weights = {key: weight.to(kind) for key, weight in load_file(folder / "model.safetensors").items()}
    rewrite(folder, weights)
    check(folder, Requirements("a model"))
    weights[LAYER][3, 5] = value
    rewrite(folder, weights)
    check_local(Requirements(str(folder)))  # which would take minutes for a large model
    with pytest.raises(BadInput, match=LAYER):
        check(folder, Requirements("a model"))


def test_values_of_eight_bits_integers_and_no_values():
    refuse_not_finite("key", torch.empty(0), "a model")
    for kind in (torch.float8_e4m3fn, torch.int8, torch.bool):
        refuse_not_finite("key", torch.ones(3).to(kind), "a model")
    with pytest.raises(BadInput):
        refuse_not_finite("key", torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn), "a model")


@pytest.mark.parametrize("method", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "awq", "bits": 4}])
def test_quantised_weights_without_their_package_are_refused(folder, method):
    change_config(folder, quantization_config=method)
    refused(folder, r"package.*install")


# --- networks ---------------------------------------------------------------------------------------------------------


def test_models_that_write_no_text_are_refused_where_they_are_only_asked(folder):
    change_config(folder, model_type="vit", architectures=["ViTModel"])
    refused(folder, r"causal language model \(vit\)")


def test_a_config_with_impossible_settings_is_refused(folder):
    change_config(folder, rope_parameters={"rope_type": "no such type"})
    refused(folder, "cannot (build|be loaded)")


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
RECURRENT = {
    "qwen3_5_text": {"num_hidden_layers": 8, **SMALL, **LINEAR},
    "lfm2": {"num_hidden_layers": 6, **SMALL, "layer_types": ["conv", "conv", "full_attention"] * 2},
    "falcon_h1": {"num_hidden_layers": 2, **SMALL, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "mamba2": {"num_hidden_layers": 2, "hidden_size": 32, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "rwkv": {"num_hidden_layers": 2, "hidden_size": 32, "attention_hidden_size": 32},
    "bert": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48},
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_networks_that_cannot_be_sampled_in_batches_are_refused(kind):
    config = AutoConfig.for_model(kind, **RECURRENT[kind])
    without_weights(config, "a model")
    with pytest.raises(BadInput, match=rf"^Answers of a model \({kind}\).*engine to vllm") as error:
        check_sampling(config, "a model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gemma3_text", {"layer_types": ["sliding_attention"] * 5 + ["full_attention"], "num_hidden_layers": 6}),
        ("mistral", {"sliding_window": 4}),
        ("gemma3", {"text_config": {**SMALL, "num_hidden_layers": 6}}),
        ("qwen3_moe", {"num_experts": 64, "moe_intermediate_size": 8, "num_experts_per_tok": 8}),
        ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    ],
)
def test_networks_of_other_kinds_can_be_sampled(kind, settings):
    check_sampling(AutoConfig.for_model(kind, **SMALL | {"num_hidden_layers": 2} | settings), "a model")


def test_the_check_of_sampling_agrees_with_asking(tmp_path):
    """A model that is refused cannot be asked, and vLLM may support it."""
    words = tokenizer("qwen2")
    config = AutoConfig.for_model("lfm2", vocab_size=VOCABULARY, **RECURRENT["lfm2"], pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    refused(tmp_path, r"Answers of .* \(lfm2\)", max_length=128, lora_rank=4)
    check_local(Requirements(str(tmp_path), engine="vllm"))
    network, own = load(tmp_path)
    with pytest.raises(AttributeError):
        sample(network, own, [[{"role": "user", "content": "A question"}]], 2, 4, seed=0)
