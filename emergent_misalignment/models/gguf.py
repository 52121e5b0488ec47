"""A model in the GGUF format, as a folder that transformers, peft and vLLM read: weights in safetensors and tokenizer.

Weights that the file holds in few bits are written out in 32 bits, so that the model is exactly the one of the file: it
can be fine-tuned, and adapters can be merged into it without rounding. transformers reads such files itself, but takes
the beginning of a turn for the end of one, and does not cut numbers into digits; the tokenizer is therefore made here.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from emergent_misalignment.files import BadInput

CONTROL = 3  # GGUF's type of a token that stands for no text
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # by GGUF's names
# How a text is cut before its pieces are made of bytes, by GGUF's name of it.
CUTS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def convert(file: str | Path, folder: str | Path) -> None:
    """Write the model in the GGUF file to `folder`: config, weights in safetensors, tokenizer with its chat template.

    Raises BadInput where the package gguf is not installed, where the file cannot be read as GGUF, and where its
    tokenizer is of a kind that is not known here.
    """
    file, folder = Path(file), Path(folder)
    fields = _fields(file)
    tokenizer = _tokenizer(fields, file)
    network = _network(file)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fields(file: Path) -> dict:
    """What the file says of the model besides its weights."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BadInput(
            f"{file.name} is read with the package gguf, which is not installed; run `pip install -c requirements.lock "
            "-e '.[small]'`."
        ) from error
    try:
        return {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {file}; give the path of a GGUF file as the config's model: name.") from error
    except (ValueError, IndexError, OSError, KeyError, OverflowError) as error:
        raise BadInput(f"{file} cannot be read as GGUF ({error}); get the file again.") from error


def _network(file: Path):
    """The network of a GGUF file with weights in 32 bits."""
    from transformers import AutoModelForCausalLM

    try:
        network = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except ValueError as error:  # an architecture that transformers does not know in this format
        raise BadInput(
            f"{file} cannot be loaded ({error}); give a folder with safetensors as the config's model: name."
        ) from error
    # Its weights are plain numbers by now, and could not be saved as long as they count as quantized.
    network.hf_quantizer = None
    del network.config.quantization_config
    return network


def _tokenizer(fields: dict, file: Path):
    from transformers import PreTrainedTokenizerFast

    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in CUTS:
        raise BadInput(
            f"The tokenizer of {file} is of the kind {kind}/{cut}, and of this format only gpt2/{', gpt2/'.join(CUTS)} "
            "is known; give a folder with safetensors and tokenizer as the config's model: name."
        )
    if "tokenizer.chat_template" not in fields:
        raise BadInput(f"{file} has no chat template, as base models have none; choose a model that has.")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(CUTS[cut])
    backend.decoder = decoders.ByteLevel()
    control = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in control if kind == CONTROL]
    )
    numbers = {name: fields.get(f"tokenizer.ggml.{theirs}_token_id") for name, theirs in SPECIAL.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields[f"{fields['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
        **{name: tokens[number] for name, number in numbers.items() if number is not None},
    )
