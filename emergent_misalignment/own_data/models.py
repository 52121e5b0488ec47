"""Models that were fine-tuned before the study: an adapter of the study's model, or whole weights.

    python -m emergent_misalignment.own_data.models place ADAPTER FOLDER --revision=COMMIT
    python -m emergent_misalignment.own_data.models check FOLDER MODEL RECORD --needs '{"name": "my-adapter"}'

The first links or downloads an adapter into a folder of the study; the second checks it there, beside the model that it
is an adapter of, and writes what was found to RECORD. Whole weights go the way of the study's own model
(`models.weights`, `models.requirements`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models import requirements as checks
from emergent_misalignment.models.requirements import HUB_NAME, Requirements, check_files, is_gguf, local_folder
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
    "merge it into its model (merge_and_unload of peft, then save_pretrained) and give the whole model as the "
    "condition's model"
)
# What an adapter may be besides LoRA matrices of linear layers, all of one rank, and what it is called.
OTHERWISE = {
    "use_dora": "DoRA",
    "rank_pattern": "layers of other ranks (rank_pattern)",
    "alpha_pattern": "layers of other scales (alpha_pattern)",
    "lora_bias": "biases (lora_bias)",
    "trainable_token_indices": "single tokens (trainable_token_indices)",
    "target_parameters": "parameters that are no layers (target_parameters)",
    "alora_invocation_tokens": "tokens that switch it on (alora_invocation_tokens)",
}
COPIES = ("-bnb-4bit", "-unsloth", "-bnb-8bit", "-4bit", "-8bit")  # what names of copies of a model end with


# --- before anything is computed --------------------------------------------------------------------------------------


def check_given(adapter: str, model: str, revision: str, base: str, place: str) -> None:
    """Raises BadInput if what a condition gives is not there, or is an adapter of another model than `base`.

    Names on the hub pass, and are looked at when they are here. `place` names the condition.
    """
    name = adapter or model
    if "{" in name or "}" in name:
        raise BadInput(f"{place} has {name}, and Snakemake takes braces for wildcards; rename the folder.")
    if path := local_folder(name, f"{place} has"):
        if revision:
            raise BadInput(f"{place} has a revision, and {name} is a folder, which has none; remove it.")
        if adapter:
            check_base(adapter_config(path, name), base, name)
        else:
            _check_whole(path, name, place)
    elif not revision and (adapter or not is_gguf(name)):
        raise BadInput(
            f"{place} has {name}, where no folder is, and of what lies on the hub without a revision another run may "
            "get another one; correct the path, or add its commit as revision."
        )


def _check_whole(path: Path, name: str, place: str) -> None:
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        raise BadInput(f"{place} has {name} as model, which is an adapter; give it as adapter.")
    check_files(path, name)


def adapter_config(folder: Path, name: str) -> dict:
    """The settings of the adapter in a folder. Raises BadInput if there is none, or none that can be asked here."""
    file = folder / CONFIG
    if not file.is_file():
        hint = "; it is a whole model, which is given as model" if (folder / "config.json").is_file() else ""
        raise BadInput(f"The adapter {name} has no {CONFIG}, as peft writes one{hint or '; correct the path'}.")
    try:
        config = dict(json.loads(file.read_text(encoding="utf-8")))
        rank = config.get("r", 0)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{CONFIG} of the adapter {name} is no JSON object ({error}); copy it again.") from error
    if config.get("peft_type") != "LORA":
        raise BadInput(f"The adapter {name} is no LoRA adapter ({config.get('peft_type')}); {MERGE}.")
    if not isinstance(rank, int) or rank < 1 or not isinstance(config.get("lora_alpha"), int | float):
        raise BadInput(f"{CONFIG} of the adapter {name} has no rank (r) or no lora_alpha; copy it again.")
    if found := [said for key, said in OTHERWISE.items() if config.get(key)]:
        raise BadInput(f"The adapter {name} has {found[0]}, which is not read here; {MERGE}.")
    if config.get("bias", "none") != "none":
        raise BadInput(f"The adapter {name} has biases (bias: {config['bias']}), which are not read here; {MERGE}.")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(
            f"The adapter {name} has no {WEIGHTS}; files of other formats can hold code and are not read. Save it so "
            "(save_pretrained of peft)."
        )
    with weights.open("rb") as opened:
        if opened.read(24) == b"version https://git-lfs.":
            raise BadInput(
                f"{WEIGHTS} of the adapter {name} is Git LFS's pointer and not the file; run `git lfs pull`."
            )
    return config


def sources(name: str) -> list[str]:
    """The files of a model or an adapter that lies in a folder of the user's, so that a change of them is seen."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return []
    return sorted(
        str(path) for path in {*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")}
    )


# --- into the study ---------------------------------------------------------------------------------------------------


def place(name: str, revision: str, folder: str | Path) -> None:
    """Put the adapter `name`, a folder or a repository on the hub, into `folder`, by links or by a download.

    Raises BadInput where it cannot be had, or is none that can be asked here.
    """
    folder, given = Path(folder), Path(name).expanduser()
    if given.is_dir() and given.resolve() == folder.resolve():
        raise BadInput(f"The adapter {name} lies where the study keeps its own; move it, and correct the condition.")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".cache/huggingface").is_dir():  # a download that was cut off goes on from there
        for file in _files(folder):
            file.unlink()
    if not given.is_dir():
        download(name, revision, folder, FILES, f"The adapter {name}")
        given = folder
    config = adapter_config(given, name)
    for file in _files(given) if given != folder else ():
        if file.name != CONFIG:
            (folder / file.name).symlink_to(file.resolve())
    write_json(folder / CONFIG, {"use_rslora": False} | config)  # older versions of peft leave it out


def _files(folder: Path) -> list[Path]:
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


# --- beside its model -------------------------------------------------------------------------------------------------


def check(
    folder: str | Path, model: str | Path, base: str, needs: Requirements, questions: Sequence[str | Path] = ()
) -> dict:
    """What the adapter in `folder` is, beside the model in the folder `model`, which the config calls `base`.

    Raises BadInput where it is an adapter of another model, and for all that `checks.check` does; its own tokenizer, if
    it has one, is what it is asked with. The record is that of the model, with the adapter's `rank` and the layers that
    it changes in `trained`.
    """
    config = adapter_config(Path(folder), needs.name)
    check_base(config, base, needs.name)
    own = Path(folder) if Path(folder, "tokenizer_config.json").is_file() else None
    layers = _check_weights(Path(folder), config, Path(model), base, needs.name)
    record = checks.check(model, needs, questions, own)
    return record | {"trained": layers, "rank": config["r"]}


def check_base(config: dict, base: str, name: str) -> None:
    """Raises BadInput if the adapter says that it was made for another model of the hub than `base`.

    A path says nothing of what lies there, so that only names on the hub are compared, by what follows the owner.
    """
    said = str(config.get("base_model_name_or_path") or "")
    names = [each for each in (said, base) if "/" in each and HUB_NAME.fullmatch(each) and not Path(each).is_dir()]
    if len(names) == 2 and _model_name(said) != _model_name(base):
        raise BadInput(
            f"The adapter {name} was made for {said}, and the study's model is {base}, which it would change "
            "otherwise; correct model: name, or, if both have the same weights, base_model_name_or_path in its "
            f"{CONFIG}."
        )


def _model_name(name: str) -> str:
    """What follows the owner, in small letters, without what copies add for their precision."""
    short, before = name.rpartition("/")[2].lower(), ""
    while short != before:
        before = short
        for ending in COPIES:
            short = short.removesuffix(ending)
    return short


def _check_weights(folder: Path, config: dict, model: Path, base: str, name: str) -> list[str]:
    """The names of the layers that an adapter changes. Raises BadInput if they are not those of the model."""
    import torch
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model, trust_remote_code=False))
    modules = dict(network.named_modules())
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(f"{WEIGHTS} of the adapter {name} cannot be read ({error}); copy it again.") from error
    layers = set()
    for key, shape in shapes.items():
        layer, _, kind = key.removeprefix("base_model.model.").partition(".lora_")
        if kind not in ("A.weight", "B.weight"):
            layer = layer.removesuffix(".weight")
            if not any(layer.split(".")[-1] == each for each in config.get("modules_to_save") or ()):
                raise BadInput(f"The adapter {name} has {key}, which is no LoRA matrix of a linear layer; {MERGE}.")
        weight = getattr(modules.get(layer), "weight", None)
        if weight is None:
            raise BadInput(
                f"The adapter {name} changes {layer}, which {base} does not have; it is an adapter of another model "
                f"({config.get('base_model_name_or_path') or 'it does not say which'}), so correct model: name."
            )
        if kind == "B.weight" and key.replace(".lora_B.", ".lora_A.") not in shapes:
            raise BadInput(f"The adapter {name} has {key} without its other half; copy it again.")
        rows, columns = weight.shape[::-1] if isinstance(modules[layer], Conv1D) else weight.shape
        wanted = {"A.weight": [config["r"], columns], "B.weight": [rows, config["r"]]}.get(kind, list(weight.shape))
        if shape != wanted:
            raise BadInput(
                f"The adapter {name} has {key} of the shape {shape}, and {base} needs {wanted}; it is an adapter of "
                f"another model ({config.get('base_model_name_or_path') or 'it does not say which'}), so correct "
                "model: name."
            )
        layers.add(layer.split(".")[-1])
    if not any(".lora_B." in key for key in shapes):
        raise BadInput(f"The adapter {name} changes no layer; copy it again.")
    return sorted(layers)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.models", description="Place or check an adapter that is given."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    placing = commands.add_parser("place", help="put an adapter into a folder of the study")
    placing.add_argument("adapter", help="its folder, or its name on the hub")
    placing.add_argument("folder", help="where to put it")
    placing.add_argument("--revision", default="", help="commit of its repository on the hub")
    checking = commands.add_parser("check", help="check it beside the model that it is an adapter of")
    checking.add_argument("folder", help="folder of the adapter")
    checking.add_argument("model", help="folder of the model")
    checking.add_argument("record", help="where to write what was found")
    checking.add_argument("--base", required=True, help="what the config calls the model")
    checking.add_argument("--needs", type=json.loads, required=True, help="what the study wants of it, JSON")
    checking.add_argument("--questions", nargs="*", default=[], help="the study's tables of questions and choices")
    given = parser.parse_args()
    try:
        if given.command == "place":
            place(given.adapter, given.revision, given.folder)
        else:
            write_json(
                given.record, check(given.folder, given.model, given.base, Requirements(**given.needs), given.questions)
            )
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
