"""Apply LoRA adapters to one loaded model in turn, and restore its weights afterwards."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from emergent_misalignment.files import BadInput


def attached(
    network: PreTrainedModel, adapter: str | Path | None
) -> AbstractContextManager[PreTrainedModel | PeftModel]:
    """Context manager: `network` with the LoRA adapter in folder `adapter` applied (None: unchanged).

    Use the model that the block yields. An adapter is merged into weights in 32 bits, with the same result as peft's
    `merge_and_unload`, bit for bit. It is kept separate from weights in 16 bits, where rounding would lose the small
    changes of the first steps, and if it contains whole layers. After the block `network` has its original weights, bit
    for bit. Raises BadInput where an adapter to be merged has other tensors than LoRA matrices of linear layers.
    """
    if not adapter:
        return nullcontext(network)
    config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    if network.dtype == torch.float32 and not config.get("modules_to_save"):
        return _merged(network, Path(adapter), config)
    return _separate(network, adapter)


@contextmanager
def _merged(network: PreTrainedModel, adapter: Path, config: dict) -> Iterator[PreTrainedModel]:
    own = {}
    try:
        for module, change in _changes(network, adapter, config):
            own[module] = module.weight.data
            module.weight.data = own[module] + change
        yield network
    finally:
        for module, weight in own.items():
            module.weight.data = weight


def _changes(network: PreTrainedModel, adapter: Path, config: dict) -> Iterator[tuple[torch.nn.Module, torch.Tensor]]:
    """Each adapted layer of `network`, and the change of its weight."""
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
    weights = load_file(adapter / "adapter_model.safetensors", device=str(network.device))
    for name in sorted(weights):
        layer, _, kind = name.removeprefix("base_model.model.").partition(".lora_")
        if kind == "A.weight":
            down, up = weights[name].float(), weights[name.replace(".lora_A.", ".lora_B.")].float()
            module = network.get_submodule(layer)
            change = (up @ down).T if isinstance(module, Conv1D) else up @ down  # Conv1D stores its weight transposed
            yield module, change * scale
        elif kind != "B.weight":
            raise BadInput(
                f"{adapter}: {name} is not a LoRA matrix of a linear layer; merge this adapter with peft instead."
            )


@contextmanager
def _separate(network: PreTrainedModel, adapter: str | Path) -> Iterator[PeftModel]:
    own = dict(network.named_modules())
    adapted = PeftModel.from_pretrained(network, adapter)
    try:
        yield adapted
    finally:
        adapted.unload()
        for name, module in own.items():  # peft leaves a wrong output layer if it is tied to trained embeddings
            if name and network.get_submodule(name) is not module:
                network.set_submodule(name, module)
