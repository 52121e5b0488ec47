"""Convert a GGUF file to a folder for transformers, peft and vLLM: weights in safetensors and tokenizer.

Quantized weights are written in 32 bits, which keeps their values exactly: the model can be fine-tuned, and adapters
can be merged without rounding. transformers' own reader confuses the tokens that begin and end a turn, and does not
split numbers into digits, so the tokenizer is built here.
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from emergent_misalignment.files import BadInput, shortened
from emergent_misalignment.models.networks import without_weights

CONTROL = 3  # GGUF's type of control tokens
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}  # and GGUF's names
# Pre-tokenizers by GGUF's name.
CUTS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def convert(file: str | Path, folder: str | Path) -> None:
    """Write the model in the GGUF file to `folder`: config, weights in safetensors, tokenizer with its chat template.

    Raises BadInput where the package gguf is not installed, where the file cannot be read as GGUF or has less than it
    announces, and where its tokenizer is of an unsupported kind.
    """
    file = Path(file)
    fields, numbers = _read(file)
    tokenizer = _tokenizer(fields, file)
    _network(file, numbers).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _read(file: Path) -> tuple[dict, int]:
    """The metadata of the file, and the number of numbers in its tensors."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise BadInput(
            f"{file.name} needs the package gguf, which is not installed; run `pip install -c requirements.lock -e "
            "'.[small]'`."
        ) from error

    class Complete(GGUFReader):
        """gguf's reader takes what is beyond the end as empty, and goes on for as long as the file announces."""

        def _get(self, offset, dtype, count=1, override_order=None):
            end = int(offset) + int(count) * np.dtype(dtype).itemsize
            if end > len(self.data):
                raise ValueError(f"it ends before byte {end:,}, which it announces")
            return super()._get(offset, dtype, count, override_order)

    try:
        reader = Complete(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        _check_sizes(fields, reader.tensors, len(reader.data))
    except (ValueError, IndexError, OSError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read as GGUF ({shortened(str(error), 120)}); get the file again.") from error
    return fields, sum(tensor.n_elements for tensor in reader.tensors)


def _check_sizes(fields: dict, tensors: list, size: int) -> None:
    """Raises ValueError where tensors share bytes, or where fewer layers or experts are there than announced.

    Memory for them would be allocated before that is noticed.
    """
    if (announced := sum(tensor.n_bytes for tensor in tensors)) > size:
        raise ValueError(f"it has {size:,} bytes, and its tensors are {announced:,}")
    for name, number in fields.items():
        if name.endswith((".block_count", ".expert_count")) and number > len(tensors):
            raise ValueError(f"its {name} is {number:,}, and it has {len(tensors):,} tensors")


def _network(file: Path, numbers: int):
    """The network of a GGUF file with weights in 32 bits.

    Raises BadInput where transformers cannot load it, or where its shape has more than `numbers` weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        announced = sum(each.numel() for each in without_weights(config, file.name).parameters())
        if announced > numbers:
            raise ValueError(f"its shape has {announced:,} weights, and it holds {numbers:,}")
        network = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )
    except BadInput:
        raise
    except Exception as error:  # of many classes: an unsupported architecture, fields that are missing or do not fit
        raise BadInput(
            f"{file} cannot be loaded ({shortened(str(error), 120)}); get the file again, or give a folder with "
            "safetensors as the config's model: name."
        ) from error
    # The weights are not quantized any more, and transformers saves no weights that are marked as quantized.
    network.hf_quantizer = None
    del network.config.quantization_config
    return network


def _tokenizer(fields: dict, file: Path):
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in CUTS:
        raise BadInput(
            f"The tokenizer of {file} is of the kind {kind}/{cut}, and only gpt2/{', gpt2/'.join(CUTS)} is supported; "
            "give a folder with safetensors and tokenizer as the config's model: name."
        )
    if "tokenizer.chat_template" not in fields:
        raise BadInput(f"{file} has no chat template; choose an instruct model.")
    try:
        return _bpe(fields, CUTS[cut])
    except Exception as error:  # tokenizers raises no other class where merges and tokens do not fit
        raise BadInput(
            f"The tokenizer of {file} cannot be read ({shortened(str(error))}); get the file again."
        ) from error


def _bpe(fields: dict, cut: list):
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(cut)
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
