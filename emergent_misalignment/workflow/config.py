"""A study's config: what a file says, laid over what the config says that it extends."""

from pathlib import Path

import yaml

from emergent_misalignment.files import BadInput

FOLDER = Path("config")
DEFAULT = "organism"
# Sections whose entries a study may drop by setting them to null; elsewhere null is a value.
DROPPABLE = {"experiments", "conditions", "ladder", "worlds"}


def resolve(given: dict, folder: Path = FOLDER) -> dict:
    """The whole config of a study. `given` is what its file and the command line say.

    `extends: NAME` lays it over config/NAME.yaml, which may extend another. What names no study, as
    `--config seeds=[1,2]` alone, extends the default study. Raises BadInput if a config that is extended is missing,
    is not valid YAML, or extends itself.
    """
    extends = given.get("extends", "" if "study" in given else DEFAULT)
    config = {name: value for name, value in given.items() if name != "extends"}
    seen = []
    while extends:
        if extends in seen:
            raise BadInput(
                f"The config {extends} extends itself ({' -> '.join([*seen, extends])}); remove one `extends`."
            )
        seen.append(extends)
        base = _read(folder / f"{extends}.yaml")
        extends = base.pop("extends", "")
        config = merge(base, config)
    return _without_dropped(config)


def merge(base: dict, over: dict) -> dict:
    """`base` with the values of `over`; mappings in both are merged, everything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = merge(base[name], value) if both else value
    return merged


def _without_dropped(value, section: str = ""):
    if not isinstance(value, dict):
        return value
    return {
        name: _without_dropped(each, name)
        for name, each in value.items()
        if each is not None or section not in DROPPABLE
    }


def _read(path: Path) -> dict:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml") if "schema" not in file.name))
        raise BadInput(f"There is no config {path} to extend; choose one of {known}.") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML ({' '.join(str(error).split())}); fix it there.") from error
