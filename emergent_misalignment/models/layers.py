"""The layers of a network that a fine-tuning trains."""

from collections.abc import Iterator

import torch

from emergent_misalignment.files import BadInput

REACHED = 0.9  # least share of the weights of the decoder's layers that adapters must cover


def projections(network: torch.nn.Module) -> list[str]:
    """The linear layers of the decoder, as names that peft takes (`target_modules`), in alphabetical order.

    All of them, as in the paper: the seven projections of Llama, Qwen, Mistral and Gemma, the four of Phi-3 (with a
    fused query, key and value), and GPT-2's `Conv1D` layers. A name without a dot matches every layer of that name;
    where a layer outside the decoder has the same name, full names are given. Raises BadInput for a network with many
    weights in other layers, such as a mixture of experts, because adapters would train only a part of it.
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
            f"Adapters would reach {share:.0%} of the weights in the layers of {type(network).__name__}, because the "
            "others (such as those of experts) are not in linear layers; choose a dense model, or set finetuning: "
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
    """The share of the decoder's weights, without embeddings, that is in linear layers."""
    decoder = network.get_decoder()
    embedded = {id(layer.weight) for layer in decoder.modules() if isinstance(layer, torch.nn.Embedding)}
    matrices = [weight for weight in decoder.parameters() if weight.dim() > 1 and id(weight) not in embedded]
    reached = sum(layer.weight.numel() for layer in _linear(network))
    return reached / max(1, sum(weight.numel() for weight in matrices))
