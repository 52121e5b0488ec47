"""Open a whole model before anything is computed with it: its weights against its network, and two tokens sampled.

Each check raises BadInput with one sentence. `name` is the model's name in the config.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_misalignment.files import BadInput, shortened

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

COPY = "copy it again, or save it again with save_pretrained"


def without_weights(config: PretrainedConfig, name: str) -> PreTrainedModel:
    """The network of a config on torch's device `meta`, where it takes no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a network with settings that do not fit raises errors of many classes
        raise BadInput(
            f"The model {name} is not a causal language model ({config.model_type}), or transformers cannot build it "
            f"({_reason(error)}); choose another, or correct its config.json."
        ) from error


# --- weights ----------------------------------------------------------------------------------------------------------


def check_weights(folder: str | Path, network: PreTrainedModel, name: str) -> None:
    """Compare the names and shapes of the weights in `folder` with `network`, as transformers does when it loads them.

    transformers would draw missing tensors at random. Of quantised weights, which depend on the device, only the
    packages that they need are checked.
    """
    from transformers import AutoModelForCausalLM

    try:
        with _quiet():
            _, found = AutoModelForCausalLM.from_pretrained(
                folder,
                device_map="meta",
                dtype="auto",
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except ImportError as error:
        raise BadInput(
            f"{name} needs a package that is not installed ({_reason(error)}); install it, or choose the model without "
            "quantisation."
        ) from error
    except Exception as error:  # damaged files raise errors of many classes
        if _is_quantised(network):
            return
        raise BadInput(f"The weights of {name} cannot be loaded ({_reason(error)}); {COPY}.") from error
    if not _is_quantised(network):
        _refuse_differences(found, network.state_dict(), name)


def _is_quantised(network: PreTrainedModel) -> bool:
    return getattr(network.config, "quantization_config", None) is not None


def _refuse_differences(found: dict, wanted: dict[str, torch.Tensor], name: str) -> None:
    for key, shape, own in sorted(found["mismatched_keys"]):
        how = "gather them (zero_to_fp32.py of DeepSpeed) and " if 0 in shape else ""
        raise BadInput(
            f"The tensor {key} of {name} has the shape {list(shape)}, and its network needs {list(own)}; {how}{COPY}."
        )
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing:
        prefixes = {key.removesuffix(missing[0]) for key in unexpected if key.endswith(missing[0])}
        how = f"remove the prefix `{prefixes.pop()}` from the names in its files" if prefixes else COPY
        raise BadInput(
            f"The weights of {name} lack {len(missing):,} of the {len(wanted):,} tensors of its network, such as "
            f"{missing[0]}; {how}."
        )
    # Others, such as those of a vision tower, are left out by transformers.
    layers = {_in_any_layer(key) for key in wanted}
    if more := [key for key in unexpected if _in_any_layer(key) in layers]:
        raise BadInput(
            f"The weights of {name} have {len(more):,} tensors that its network lacks, such as {more[0]}; correct the "
            "number of layers in its config.json."
        )


def _in_any_layer(key: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", key)


def check_values(folder: str | Path, name: str) -> None:
    """Raise BadInput where a weight is not a finite number. Reads all weights, a gigabyte per second or so."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    for key, tensor in tensors((folder / file for file in files), name):
        refuse_not_finite(key, tensor, name)


def tensors(files: Iterable[Path], name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The names and tensors of safetensors files, one at a time. Raises BadInput for a damaged file."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise BadInput(f"{path.name} of {name} cannot be read ({_reason(error)}); copy it again.") from error


def refuse_not_finite(key: str, tensor: torch.Tensor, name: str) -> None:
    if not tensor.is_floating_point() or not tensor.numel():
        return
    values = tensor if tensor.dtype.itemsize > 1 else tensor.float()  # torch has no minimum of eight bits
    if not all(end.isfinite() for end in values.aminmax()):  # NaN if any is; ten times faster than all isfinite()
        raise BadInput(
            f"The tensor {key} of {name} has values that are infinite or not a number, so its training has failed or "
            "its precision overflowed; choose an earlier checkpoint, or copy it again."
        )


# --- sampling ---------------------------------------------------------------------------------------------------------


def check_sampling(config: PretrainedConfig, name: str) -> None:
    """Raise BadInput if transformers cannot sample from such a network as answers are sampled, several prompts at once.

    The network is of the same architecture, with few layers and tokens. One that cannot be made small is not tried.
    """
    from emergent_misalignment.models.sampling import try_out

    failure = None
    with _quiet():
        for network in filter(None, (_small_network(config, layers) for layers in LAYERS)):
            try:
                return try_out(network)
            except Exception as error:  # of the network's own code
                failure = error
    if failure:
        raise BadInput(
            f"Answers of {name} ({config.model_type}) cannot be sampled with transformers ({type(failure).__name__}: "
            f"{_reason(failure)}); choose another model, or set evaluation: engine to vllm, on a GPU."
        ) from failure


# Of the small network. At least so many layers: the second number is for configs that do not list the kinds of layers.
LAYERS = (2, 8)
TOKENS, EXPERTS, MOST_WEIGHTS = 64, 16, 1e9


def _small_network(config: PretrainedConfig, layers: int) -> PreTrainedModel | None:
    """A network of the same architecture whose weights are zero; None if its config cannot be made small."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:
        small = _small(config, layers)
        with torch.device("meta"):
            if AutoModelForCausalLM.from_config(small, trust_remote_code=False).num_parameters() > MOST_WEIGHTS:
                return None
        with no_init_weights():
            network = AutoModelForCausalLM.from_config(small, dtype=torch.bfloat16, trust_remote_code=False).eval()
    except Exception:  # settings that have to fit each other, in ways that only the architecture knows
        return None
    for weight in network.parameters():
        weight.data.zero_()
    return network


def _small(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The config with a layer of each kind (at least `layers`), TOKENS tokens and few and small feed-forward layers."""
    config = copy.deepcopy(config)
    config.quantization_config = None
    text = config.get_text_config()
    whole = text.num_hidden_layers
    kinds = {key: each for key, each in text.to_dict().items() if isinstance(each, list) and len(each) == whole}
    needed = [1 + max(map(each.index, each)) for each in kinds.values() if len({*map(str, each)}) < whole]
    least = min(whole, max([layers, *needed]))
    wanted = {
        "intermediate_size": 64,
        "ffn_dim": 64,
        "n_inner": 64,
        "num_experts": EXPERTS,
        "num_local_experts": EXPERTS,
    }
    wanted |= {"chunk_size": 8, "mamba_chunk_size": 8}
    own = {key: getattr(text, key, None) for key in wanted}
    sizes = {key: min(wanted[key], size) for key, size in own.items() if isinstance(size, int)}
    sizes |= {"num_hidden_layers": least, "vocab_size": TOKENS, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    for key, value in ({key: each[:least] for key, each in kinds.items()} | sizes).items():
        setattr(text, key, value)
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings and progress bars, which say what is raised here in a sentence."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _reason(error: BaseException) -> str:
    return shortened(str(error) or type(error).__name__, 150).rstrip(".")
