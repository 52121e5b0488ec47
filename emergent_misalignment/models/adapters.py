"""One model with one LoRA adapter after another, and without any afterwards."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from emergent_misalignment.files import BadInput


@contextmanager
def merged(network: PreTrainedModel, adapter: str | Path | None) -> Iterator[PreTrainedModel]:
    """Inside the block, `network` has the LoRA adapter in folder `adapter` merged into its weights (None: none).

    Afterwards it has its own weights again, to the last bit. Raises BadInput if the folder holds anything but LoRA
    matrices of linear layers.
    """
    own = {}
    try:
        for module, change in _changes(network, Path(adapter)) if adapter else ():
            own[module] = module.weight.data
            module.weight.data = own[module] + change.to(own[module])
        yield network
    finally:
        for module, weight in own.items():
            module.weight.data = weight


@contextmanager
def with_adapter(network: PreTrainedModel, adapter: str | Path | None) -> Iterator[PreTrainedModel]:
    """Yields `network` with the adapter in folder `adapter` beside its weights (None: as it is).

    For real models: merged, the small change of the first steps would be lost in 16 bits, and a copy of the weights
    would have to fit beside them. Afterwards `network` is itself again.
    """
    if not adapter:
        yield network
        return
    from peft import PeftModel

    own = dict(network.named_modules())
    adapted = PeftModel.from_pretrained(network, adapter)
    try:
        yield adapted
    finally:
        adapted.unload()
        for name, module in own.items():  # peft leaves a wrong output layer where one is tied to trained embeddings
            if name and network.get_submodule(name) is not module:
                network.set_submodule(name, module)


def _changes(network: PreTrainedModel, adapter: Path) -> Iterator[tuple[torch.nn.Module, torch.Tensor]]:
    """Each adapted layer of `network`, and what the adapter adds to its weight."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
    weights = load_file(adapter / "adapter_model.safetensors")
    for name in sorted(weights):
        layer, _, kind = name.removeprefix("base_model.model.").partition(".lora_")
        if kind == "A.weight":
            down, up = weights[name], weights[name.replace(".lora_A.", ".lora_B.")]
            yield network.get_submodule(layer), scale * up @ down
        elif kind != "B.weight":
            raise BadInput(
                f"{adapter}: {name} is no LoRA matrix of a linear layer; merge this adapter with peft instead."
            )
