"""Loading local models."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def load(model: str | Path, adapter: str | Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in folder `model`, with the LoRA adapter in folder `adapter` merged into it, and its tokenizer.

    The weights have the precision of the folder's files, and are on the GPU if there is one. To apply several adapters
    to one model in turn, see `adapters.attached`.
    """
    network = AutoModelForCausalLM.from_pretrained(Path(model).expanduser(), dtype="auto", trust_remote_code=False)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    if adapter:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, Path(adapter).expanduser()).merge_and_unload()
    return network.eval(), load_tokenizer(model, adapter)


def load_tokenizer(model: str | Path, adapter: str | Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, which pads on the left; with an adapter the adapter's own, if it has one.

    An adapter's tokenizer has the chat template of its fine-tuning. That of a checkpoint is in the parent folder.
    """
    folders = [Path(adapter).expanduser(), Path(adapter).expanduser().parent] if adapter else []
    own = [folder for folder in folders if (folder / "tokenizer_config.json").exists()]
    folder = own[0] if own else Path(model).expanduser()
    return AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
