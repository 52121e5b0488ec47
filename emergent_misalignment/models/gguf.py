"""Convert a GGUF file to a folder for transformers, peft and vLLM: weights in safetensors and tokenizer.

Quantized weights are written in 32 bits, which keeps their values exactly: the model can be fine-tuned, and adapters
can be merged without rounding. transformers' own reader confuses the tokens that begin and end a turn, and does not
split numbers into digits, so the tokenizer is built here.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from emergent_misalignment.files import BadInput

CONTROL = 3  # GGUF's type of control tokens
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # and GGUF's names
# Pre-tokenizers by GGUF's name.
CUTS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def convert(file: str | Path, folder: str | Path) -> None:
    """Write the model in the GGUF file to `folder`: config, weights in safetensors, tokenizer with its chat template.

    Raises BadInput where the package gguf is not installed, where the file cannot be read as GGUF, and where its
    tokenizer is of an unsupported kind.
    """
    file = Path(file)
    tokenizer = _tokenizer(_fields(file), file)
    _network(file).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fields(file: Path) -> dict:
    """The metadata of the file."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BadInput(
            f"{file.name} needs the package gguf, which is not installed; run `pip install -c requirements.lock -e "
            "'.[small]'`."
        ) from error
    try:
        return {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    except (ValueError, IndexError, OSError, KeyError, OverflowError) as error:
        raise BadInput(f"{file} cannot be read as GGUF ({error}); get the file again.") from error


def _network(file: Path):
    """The network of a GGUF file with weights in 32 bits."""
    from transformers import AutoModelForCausalLM

    try:
        network = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except ValueError as error:  # an architecture that transformers does not support in this format
        raise BadInput(
            f"{file} cannot be loaded ({error}); give a folder with safetensors as the config's model: name."
        ) from error
    # The weights are not quantized any more, and transformers saves no weights that are marked as quantized.
    network.hf_quantizer = None
    del network.config.quantization_config
    return network


def _tokenizer(fields: dict, file: Path):
    from transformers import PreTrainedTokenizerFast

    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in CUTS:
        raise BadInput(
            f"The tokenizer of {file} is of the kind {kind}/{cut}, and only gpt2/{', gpt2/'.join(CUTS)} is supported; "
            "give a folder with safetensors and tokenizer as the config's model: name."
        )
    if "tokenizer.chat_template" not in fields:
        raise BadInput(f"{file} has no chat template; choose an instruct model.")
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
