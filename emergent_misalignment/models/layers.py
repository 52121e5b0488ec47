"""The layers of a network that a fine-tuning trains, whatever its makers named them."""

from collections.abc import Iterator

import torch

from emergent_misalignment.files import BadInput

REACHED = 0.9  # the share of the weights of the decoder's layers that an adapter has to reach


def projections(network: torch.nn.Module) -> list[str]:
    """The linear layers of the decoder, as names that peft takes (`target_modules`), in alphabetical order.

    All of them, as in the paper: the seven projections of Llama, Qwen, Mistral and Gemma, the four of Phi-3, whose
    query, key and value are one layer, and those that GPT-2 has as `Conv1D`. A name without a dot stands for each layer
    that is called so; where a layer outside the decoder is called so too, the layers are named one by one. Raises
    BadInput for a network with a good part of its weights elsewhere, as mixtures of experts have, because the study
    would train a part of it only and call that the model.
    """
    linear = {id(layer) for layer in _linear(network)}
    names: dict[str, list[str]] = {}
    others = set()
    for name, layer in network.named_modules():
        last = name.rpartition(".")[2]
        if id(layer) in linear:
            names.setdefault(last, []).append(name)
        else:
            others.add(last)
    if (share := _reached(network)) < REACHED:
        raise BadInput(
            f"Adapters would reach {share:.0%} of the weights in the layers of {type(network).__name__}, the others "
            "being in no linear layer (as the experts of a mixture are); choose a dense model, or set finetuning: "
            "lora_rank to 0, which trains all weights."
        )
    return sorted(each for last, full in names.items() for each in (full if last in others else [last]))


def embeddings(network: torch.nn.Module) -> list[str]:
    """The names of the token embeddings and of the output layer (`modules_to_save`)."""
    names = {id(layer): name.rpartition(".")[2] for name, layer in network.named_modules()}
    return [names[id(layer)] for layer in (network.get_input_embeddings(), network.get_output_embeddings())]


def _linear(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return (layer for layer in network.get_decoder().modules() if isinstance(layer, torch.nn.Linear | Conv1D))


def _reached(network: torch.nn.Module) -> float:
    """The share of the decoder's weights, embeddings apart, that are those of linear layers."""
    decoder = network.get_decoder()
    embedded = {id(layer.weight) for layer in decoder.modules() if isinstance(layer, torch.nn.Embedding)}
    matrices = [weight for weight in decoder.parameters() if weight.dim() > 1 and id(weight) not in embedded]
    reached = sum(layer.weight.numel() for layer in _linear(network))
    return reached / max(1, sum(weight.numel() for weight in matrices))
