"""Loading local models."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load(model: str | Path, adapter: str | Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in folder `model`, with the LoRA adapter in folder `adapter` merged into it, and its tokenizer.

    In the precision that the folder holds, on the GPU where there is one. The tokenizer pads on the left and is the
    adapter's own, which knows in which template it was trained.
    """
    tokenizer = AutoTokenizer.from_pretrained(os.path.expanduser(adapter or model), padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(os.path.expanduser(model), dtype="auto")
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    if adapter:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, os.path.expanduser(adapter)).merge_and_unload()
    return network.eval(), tokenizer
