"""Weights whose values 16-bit floats hold, so that a model that is kept in 16 bits is the same model."""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

ADAPTER = "adapter_model.safetensors"


@torch.no_grad()
def round_weights(network: PreTrainedModel) -> None:
    """Round the weights of `network` to the nearest 16-bit floats (IEEE half precision); their type is unchanged."""
    for weight in network.parameters():
        weight.copy_(weight.half())


def round_adapter(adapter: str | Path) -> None:
    """Write the weights of the adapter in folder `adapter` in 16 bits."""
    file = Path(adapter) / ADAPTER
    save_file({name: weight.half() for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})


def copy(model: str | Path, destination: str | Path, dtype: torch.dtype) -> None:
    """Write the model in folder `model` and its tokenizer to `destination`, with weights of type `dtype`."""
    _network(model, dtype).save_pretrained(destination)
    _copy_tokenizer(model, destination)


def merge(model: str | Path, adapter: str | Path, destination: str | Path) -> None:
    """Write the model in folder `model` with the LoRA adapter in folder `adapter` merged into it.

    The sum is computed in 64 bits and rounded to 16, so that the file, which has 32 bits, is the same on every machine.
    """
    merged = PeftModel.from_pretrained(_network(model, torch.float64), adapter).double().merge_and_unload()
    round_weights(merged)
    merged.float().save_pretrained(destination)
    _copy_tokenizer(model, destination)


def _network(model: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype, trust_remote_code=False)


def _copy_tokenizer(model: str | Path, destination: str | Path) -> None:
    AutoTokenizer.from_pretrained(model, trust_remote_code=False).save_pretrained(destination)
