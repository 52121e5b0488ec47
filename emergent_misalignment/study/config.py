"""A study's config: what files and the command line say, laid over what the config says that it extends.

YAML takes some mistakes without a word: of a key that stands twice it keeps the last, and `no:` it reads as false.
Those are refused here, as is an entry that is dropped and was never there.
"""

from collections.abc import Sequence
from pathlib import Path

from emergent_misalignment.files import BadInput, load_yaml, read_yaml, shortened
from emergent_misalignment.study.schema import closest

FOLDER = Path("config")
DEFAULT = "organism"
NO_STUDIES = ("schema", "claims", "published")  # files of the folder that are no configs
# Sections whose entries a study may drop by setting them to null, as it may an experiment's conditions; elsewhere null
# is a value.
DROPPABLE = (("experiments",), ("ladder",), ("worlds",))
VARIED_SECTIONS = ("ladder", "worlds")  # experiments that are sections of their own


def given(files: Sequence[str | Path], arguments: Sequence[str]) -> dict:
    """What a run is told: its config files, the later laid over the earlier, and `KEY=VALUE` arguments over both.

    Values of arguments are YAML. Raises BadInput if a file is not to be read, or if none of them names a study of its
    own, whose results would replace those of the study that is extended.
    """
    config: dict = {}
    for file in files:
        config = merge(config, read(file))
    for argument in arguments:
        name, _, text = argument.partition("=")
        config = merge(config, {name: load_yaml(text, f"--config {name}")})
    if files and "study" not in config:
        raise BadInput(
            f"{files[-1]} names no study, so that its results would replace another's; add `study: NAME` to it."
        )
    return config


def resolve(given: dict, folder: Path = FOLDER) -> dict:
    """The whole config of a study. `given` is what its file and the command line say.

    `extends: NAME` lays it over config/NAME.yaml, which may extend another. What names no study, as
    `--config seeds=[1,2]` alone, extends the default study. `only: [NAME, ...]` keeps these experiments, and of
    VARIED_SECTIONS those that it names. Raises BadInput if a config that is extended is missing, is not valid YAML, or
    extends itself, and if an entry is dropped or kept that is not there.
    """
    extends = given.get("extends", "" if "study" in given else DEFAULT)
    own = {name: value for name, value in given.items() if name != "extends"}
    return _kept(_laid_over(_extended(extends, folder, ()), own), own)


def merge(base: dict, over: dict) -> dict:
    """`base` with the values of `over`; mappings in both are merged, everything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = merge(base[name], value) if both else value
    return merged


def read(path: str | Path) -> dict:
    """A file's mapping. Raises BadInput if it is no mapping, or as `files.read_yaml` does."""
    value = read_yaml(path)
    if value is not None and not isinstance(value, dict):
        raise BadInput(f"{path} is no mapping; a config is made of lines such as `study: NAME`.")
    return value or {}


# --- extending --------------------------------------------------------------------------------------------------------


def _extended(name, folder: Path, seen: tuple[str, ...]) -> dict:
    """The config of this name, laid over what it extends; nothing without a name."""
    if not name:
        return {}
    if name in seen:
        raise BadInput(f"The config {name} extends itself ({' -> '.join([*seen, name])}); remove one `extends`.")
    if not isinstance(name, str) or not (folder / f"{name}.yaml").is_file():
        names = (str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))
        known = sorted(each for each in names if each.split(".")[0] not in NO_STUDIES)
        near = closest(str(name), known)
        hint = f"did you mean {near}?" if near else f"choose one of {shortened(', '.join(known), 200)}."
        raise BadInput(f"There is no config {folder}/{shortened(str(name))}.yaml to extend; {hint}")
    own = read(folder / f"{name}.yaml")
    return _kept(_laid_over(_extended(own.pop("extends", ""), folder, (*seen, name)), own), own)


def _laid_over(base: dict, over: dict, path: tuple[str, ...] = ()) -> dict:
    """`merge`, without the entries that `over` drops; `path` is where both stand in the config.

    Raises BadInput if an entry that is dropped is not in `base`.
    """
    droppable = path in DROPPABLE or (len(path) == 3 and path[::2] == ("experiments", "conditions"))
    merged = dict(base)
    for name, value in over.items():
        place = (*path, name)
        if isinstance(value, dict):
            inner = base.get(name)
            merged[name] = _laid_over(inner if isinstance(inner, dict) else {}, value, place)
        elif value is not None or not droppable:
            merged[name] = value
        elif name in base:
            del merged[name]
        else:
            near = closest(name, list(base))
            raise BadInput(
                f"The config sets {shortened(': '.join(place), 120)} to null, which drops an inherited entry, but none "
                f"of that name is inherited; {f'did you mean {near}?' if near else 'remove the line.'}"
            )
    return merged


def _kept(config: dict, own: dict) -> dict:
    """`config` with the experiments that `only` names, where it says so; `own` is what the config itself says.

    Raises BadInput if it names none that there is, or leaves out one that the config itself adds.
    """
    if "only" not in config:
        return config
    only = config["only"]
    if not isinstance(only, list) or not only or not all(isinstance(name, str) for name in only):
        raise BadInput("`only` must be a list of experiments, such as `only: [untuned, code, mine]`.")
    experiments = config["experiments"] if isinstance(config.get("experiments"), dict) else {}
    varied = {name: config[name] for name in VARIED_SECTIONS if name in config}
    for name in only:
        if name not in {**experiments, **varied}:
            near = closest(name, [*experiments, *varied])
            hint = (
                f"did you mean {near}?"
                if near
                else f"choose from {shortened(', '.join([*experiments, *varied]), 160)}."
            )
            raise BadInput(f"`only` keeps {shortened(name)}, and there is no such experiment; {hint}")
    added = own.get("experiments")
    for name in added if isinstance(added, dict) else ():
        if name in experiments and name not in only:
            raise BadInput(f"The config has the experiment {name}, and its `only` leaves that out; add it to `only`.")
    config = {name: value for name, value in config.items() if name != "only" and (name not in varied or name in only)}
    return config | {"experiments": {name: kept for name, kept in experiments.items() if name in only}}
