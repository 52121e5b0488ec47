"""Use an existing model, one that was fine-tuned before the study: an adapter of the study's model, or whole weights.

Whole weights are handled like the study's own model (`models.weights`, `models.requirements`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from safetensors import SafetensorError, safe_open

from emergent_misalignment.data.parsing import parse_json
from emergent_misalignment.files import BadInput, shortened, write_json
from emergent_misalignment.models import networks, requirements
from emergent_misalignment.models.requirements import HUB_NAME, Requirements, is_gguf, local_folder
from emergent_misalignment.models.weights import download

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (
    CONFIG,
    WEIGHTS,
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)
MERGE = (
    "merge it into its model (merge_and_unload of peft, then save_pretrained) and use the whole model as the "
    "condition's model"
)
# Settings of peft's LoraConfig that an adapter may have; any other has to be empty. These describe the adapter, its
# training or where its matrices are, which their names say too.
SUPPORTED = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "init_lora_weights", "eva_config", "ensure_weight_tying"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("r", "lora_alpha", "use_rslora", "fan_in_fan_out", "bias"),
    *("megatron_core", "qalora_group_size"),  # of layers that need other settings too
}
# Other initial weights change the model's own weights, and the adapter is then one of the changed model.
INITIAL = (True, False, None, "gaussian", "orthogonal", "eva")
COPIES = ("-bnb-4bit", "-unsloth", "-bnb-8bit", "-4bit", "-8bit")  # suffixes of the names of a model's copies


# --- while the study is planned ---------------------------------------------------------------------------------------


def check_existing(adapter: str, model: str, revision: str, base: str, place: str) -> None:
    """Raises BadInput if a condition's adapter or model is not there, is incomplete, or is an adapter of another model.

    `base` is the study's model. Names on the hub are checked once they are downloaded. `place` names the condition.
    """
    name = adapter or model
    if "{" in name or "}" in name:
        raise BadInput(f"{place} has {name}, and Snakemake reads braces as wildcards; rename the folder.")
    if path := local_folder(name, f"{place} has"):
        if revision:
            raise BadInput(f"{place} has a revision, but {name} is a folder; remove the revision.")
        if adapter:
            check_base(adapter_config(path, name), base, name)
            return
        if (path / CONFIG).is_file() and not (path / "config.json").is_file():
            raise BadInput(f"{place} has {name} as model, which is an adapter; use `adapter` instead of `model`.")
        requirements.opened(path, name)
    elif not revision and (adapter or not is_gguf(name)):
        raise BadInput(
            f"{place} has {name}, which is not a folder, and no revision; correct the path, or pin the hub's content, "
            "which can change, by adding its commit as revision."
        )


def adapter_config(folder: Path, name: str) -> dict:
    """The settings of the adapter in a folder. Raises BadInput if there is no adapter that is supported."""
    file, weights = folder / CONFIG, folder / WEIGHTS
    if not file.is_file():
        hint = "it is a whole model, so use `model`" if (folder / "config.json").is_file() else "correct the path"
        raise BadInput(f"The adapter {name} has no {CONFIG}; {hint}.")
    try:
        config = dict(parse_json(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{CONFIG} of the adapter {name} is not a JSON object ({error}); copy it again.") from error
    if config.get("peft_type") != "LORA":
        raise BadInput(f"The adapter {name} is not a LoRA adapter ({config.get('peft_type')}); {MERGE}.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not alpha or not isfinite(alpha):
        raise BadInput(f"{CONFIG} of the adapter {name} has no valid rank (r) or lora_alpha; copy it again.")
    found = [key for key, value in config.items() if value and key not in SUPPORTED]
    found += [] if config.get("bias", "none") == "none" else ["bias"]
    found += [] if config.get("init_lora_weights") in INITIAL else ["init_lora_weights"]
    if found:
        setting = f"{found[0]}: {shortened(json.dumps(config[found[0]]))}"
        raise BadInput(f"The adapter {name} has the setting {setting}, which is not supported; {MERGE}.")
    if not weights.is_file():
        raise BadInput(
            f"The adapter {name} has no {WEIGHTS}; other formats can contain code and are not read, so save it with "
            "save_pretrained of peft."
        )
    _shapes(weights, name)
    return config


def _shapes(weights: Path, name: str) -> dict[str, list[int]]:
    """The shapes of an adapter's matrices. Raises BadInput if the file is damaged."""
    try:
        with safe_open(weights, "np") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(
            f"{weights.name} of the adapter {name} cannot be read ({error}); copy it again, with `git lfs pull` if it "
            "is from a Git repository."
        ) from error


def check_base(config: dict, base: str, name: str) -> None:
    """Raises BadInput if an adapter's settings name another model on the hub than `base`.

    Only names on the hub are compared, without their owners: a path does not identify a model.
    """
    own = str(config.get("base_model_name_or_path") or "")
    names = [each for each in (own, base) if "/" in each and HUB_NAME.fullmatch(each) and not Path(each).is_dir()]
    if len(names) == 2 and _model_name(own) != _model_name(base):
        raise BadInput(
            f"The adapter {name} was made for {own}, and the study's model is {base}; correct model: name, or, if both "
            f"have the same weights, base_model_name_or_path in its {CONFIG}."
        )


def _model_name(name: str) -> str:
    """The name without its owner, in lower case, without the suffixes of COPIES."""
    short, before = name.rpartition("/")[2].lower(), ""
    while short != before:
        before = short
        for ending in COPIES:
            short = short.removesuffix(ending)
    return short


def sources(name: str) -> list[str]:
    """The files of a model or an adapter in a user's folder, so that Snakemake sees when they change."""
    folder = Path(name).expanduser()
    return sorted(str(path) for ending in ("safetensors", "json", "jinja") for path in folder.glob(f"*.{ending}"))


# --- into the study ---------------------------------------------------------------------------------------------------


def place(name: str, revision: str, folder: str | Path) -> None:
    """Link or download the adapter `name`, a folder or a repository on the hub, into `folder`.

    Raises BadInput if it cannot be downloaded or is not supported.
    """
    folder, source = Path(folder), Path(name).expanduser()
    if source.is_dir() and source.resolve() == folder.resolve():
        raise BadInput(
            f"The adapter {name} is in the folder that the study writes; move it, and correct the condition."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".cache/huggingface").is_dir():  # an interrupted download is continued
        for file in _files(folder):
            file.unlink()
    if not source.is_dir():
        download(name, revision, folder, FILES, f"The adapter {name}")
        source = folder
    config = adapter_config(source, name)
    for file in _files(source) if source != folder else ():
        if file.name != CONFIG:
            (folder / file.name).symlink_to(file.resolve())
    write_json(folder / CONFIG, {"use_rslora": False} | config)  # older versions of peft leave it out


def _files(folder: Path) -> list[Path]:
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


# --- against its model ------------------------------------------------------------------------------------------------


def check(
    folder: str | Path, model: str | Path, base: str, required: Requirements, questions: Sequence[str | Path] = ()
) -> dict:
    """Check the adapter in `folder` against the model in the folder `model`, which the config calls `base`.

    Raises BadInput if it is an adapter of another model, or as `requirements.check` does with the adapter's own
    tokenizer, if it has one. Returns the record of the model, with the adapter's `rank` and the layers that it changes
    as `trained`.
    """
    config = adapter_config(Path(folder), required.name)
    check_base(config, base, required.name)
    tokenizer = Path(folder) if Path(folder, "tokenizer_config.json").is_file() else None
    layers = _check_weights(Path(folder), config, Path(model), base, required.name)
    _check_change(Path(folder), required.name)
    record = requirements.check(model, required, questions, tokenizer)
    return record | {"trained": layers, "rank": config["r"]}


def _check_weights(folder: Path, config: dict, model: Path, base: str, name: str) -> list[str]:
    """The names of the layers that an adapter changes. Raises BadInput if the model does not have these layers."""
    from transformers import AutoConfig
    from transformers.pytorch_utils import Conv1D

    network = networks.without_weights(AutoConfig.from_pretrained(model, trust_remote_code=False), base)
    modules = dict(network.named_modules())
    other = f"its model is {config.get('base_model_name_or_path') or 'another one'}, so correct model: name"
    shapes, layers = _shapes(folder / WEIGHTS, name), set()
    for key, shape in shapes.items():
        layer, _, kind = key.removeprefix("base_model.model.").partition(".lora_")
        if kind not in ("A.weight", "B.weight"):
            layer = layer.removesuffix(".weight")
            if layer.split(".")[-1] not in (config.get("modules_to_save") or ()):
                raise BadInput(f"{key} of the adapter {name} is not a LoRA matrix of a linear layer; {MERGE}.")
        weight = getattr(modules.get(layer), "weight", None)
        if weight is None:
            raise BadInput(f"The adapter {name} changes {layer}, which {base} does not have; {other}.")
        if kind == "B.weight" and key.replace(".lora_B.", ".lora_A.") not in shapes:
            raise BadInput(f"The adapter {name} has {key} without its lora_A; copy it again.")
        rows, columns = weight.shape[::-1] if isinstance(modules[layer], Conv1D) else weight.shape
        wanted = {"A.weight": [config["r"], columns], "B.weight": [rows, config["r"]]}.get(kind, list(weight.shape))
        if shape != wanted:
            raise BadInput(f"{key} of the adapter {name} has the shape {shape}, and {base} needs {wanted}; {other}.")
        layers.add(layer.split(".")[-1])
    if not any(".lora_B." in key for key in shapes):
        raise BadInput(f"The adapter {name} changes no layer; copy it again.")
    return sorted(layers)


def _check_change(folder: Path, name: str) -> None:
    """Raise BadInput if an adapter changes nothing, or has values that are not finite."""
    changed = set()
    for key, tensor in networks.tensors([folder / WEIGHTS], f"the adapter {name}"):
        networks.refuse_not_finite(key, tensor, f"the adapter {name}")
        changed |= {key} if tensor.any() else set()
    if not any(".lora_" not in key or key.replace(".lora_B.", ".lora_A.") in changed - {key} for key in changed):
        raise BadInput(
            f"The adapter {name} changes nothing, because lora_B (or lora_A) of each layer is zero, as before "
            "training; give the trained one."
        )
