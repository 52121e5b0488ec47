"""Read a study's config: files and arguments of the command line, on top of the config that it extends."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emergent_misalignment.files import BadInput, load_yaml, read_yaml, shortened
from emergent_misalignment.study.errors import closest, sentence, unknown
from emergent_misalignment.study.model import KINDS, Study, kind_of

FOLDER = Path("config")
DEFAULT = "organism"
NO_STUDIES = ("schema", "claims", "published")  # files of the folder that are no configs
# Sections whose entries a study may drop by setting them to null, as it may an experiment's conditions; elsewhere null
# is a value.
DROPPABLE = (("experiments",), ("ladder",), ("worlds",))
EXPERIMENT_SECTIONS = ("ladder", "worlds")  # experiments that are sections of their own


def load(files: Sequence[str | Path] = (), arguments: Sequence[str] = (), folder: Path = FOLDER) -> Study:
    """The study that config files and `KEY=VALUE` arguments describe; without any, the default study.

    Raises BadInput with one sentence that names the file, the place and the mistake.
    """
    file = files[-1] if files else folder / f"{DEFAULT}.yaml"
    given = combined(files, arguments)
    try:
        resolved = resolve(given, folder)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    return validated(resolved, str(file))


def validated(config: dict, place: str = "The config") -> Study:
    """The study that a resolved config describes; `place` is named in the sentence of BadInput."""
    kind = kind_of(config)
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        raise BadInput(f"{place}: {sentence(error, kind, KINDS)}") from None


def read_study(path: str | Path) -> Study:
    """The study of data/STUDY/study.json."""
    return validated(json.loads(Path(path).read_text(encoding="utf-8")), str(path))


def combined(files: Sequence[str | Path], arguments: Sequence[str]) -> dict:
    """What config files say, a later file overriding an earlier, and `KEY=VALUE` arguments overriding both.

    Values of arguments are YAML. Raises BadInput if a file cannot be read, or if no file names a study of its own,
    whose results would replace those of the study that is extended.
    """
    config: dict = {}
    for file in files:
        config = merge(config, read(file))
    for argument in arguments:
        name, _, text = argument.partition("=")
        config = merge(config, {name: load_yaml(text, f"--config {name}")})
    if files and "study" not in config:
        raise BadInput(f"{files[-1]} lacks `study`, so that its results would replace another's; add `study: NAME`.")
    return config


def resolve(given: dict, folder: Path = FOLDER) -> dict:
    """The whole config of a study.

    `extends: NAME` puts it on top of config/NAME.yaml, which may extend another. A config without `study`, such as
    `--config seeds=[1,2]` alone, extends the default study. `only: [NAME, ...]` keeps these experiments, `ladder` and
    `worlds` among them. Raises BadInput if a config that is extended is missing, is not valid YAML or extends itself,
    and if an entry is dropped or kept that does not exist.
    """
    extends = given.get("extends", "" if "study" in given else DEFAULT)
    own = {name: value for name, value in given.items() if name != "extends"}
    return _kept(_on_top(_extended(extends, folder, ()), own), own)


def merge(base: dict, over: dict) -> dict:
    """`base` with the values of `over`; mappings in both are merged, everything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = merge(base[name], value) if both else value
    return merged


def read(path: str | Path) -> dict:
    """A file's mapping. Raises BadInput if it is not one, or as `files.read_yaml` does."""
    value = read_yaml(path)
    if value is not None and not isinstance(value, dict):
        raise BadInput(f"{path} is not a mapping; a config has lines such as `study: NAME`.")
    return value or {}


# --- extending --------------------------------------------------------------------------------------------------------


def _extended(name: Any, folder: Path, seen: tuple[str, ...]) -> dict:
    """The config of this name, on top of what it extends; nothing without a name."""
    if not name:
        return {}
    if name in seen:
        raise BadInput(f"The config {name} extends itself ({' -> '.join([*seen, name])}); remove one `extends`.")
    if not isinstance(name, str) or not (folder / f"{name}.yaml").is_file():
        names = (str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))
        known = sorted(each for each in names if each.split(".")[0] not in NO_STUDIES)
        raise BadInput(unknown(f"`extends`: there is no {folder}/{shortened(str(name))}.yaml", str(name), known))
    own = read(folder / f"{name}.yaml")
    return _kept(_on_top(_extended(own.pop("extends", ""), folder, (*seen, name)), own), own)


def _on_top(base: dict, over: dict, path: tuple[str, ...] = ()) -> dict:
    """`merge`, without the entries that `over` drops; `path` is the place of both in the config.

    Raises BadInput if an entry that is dropped is not in `base`.
    """
    droppable = path in DROPPABLE or (len(path) == 3 and path[::2] == ("experiments", "conditions"))
    merged = dict(base)
    for name, value in over.items():
        place = (*path, name)
        if isinstance(value, dict):
            inner = base.get(name)
            merged[name] = _on_top(inner if isinstance(inner, dict) else {}, value, place)
        elif value is not None or not droppable:
            merged[name] = value
        elif name in base:
            del merged[name]
        else:
            near = closest(name, list(base))
            raise BadInput(
                f"`{shortened(': '.join(place), 120)}` is null, which drops an inherited entry, and no such entry is "
                f"inherited; {f'did you mean `{near}`?' if near else 'remove the line.'}"
            )
    return merged


def _kept(config: dict, own: dict) -> dict:
    """`config` with only the experiments that `only` names; `own` is what the config itself says.

    Raises BadInput if `only` names an experiment that does not exist, or omits one that the config itself adds.
    """
    if "only" not in config:
        return config
    only = config["only"]
    if not isinstance(only, list) or not only or not all(isinstance(name, str) for name in only):
        raise BadInput("`only` must be a list of experiments, such as `only: [untuned, code, mine]`.")
    experiments = config["experiments"] if isinstance(config.get("experiments"), dict) else {}
    sections = {name: config[name] for name in EXPERIMENT_SECTIONS if name in config}
    for name in only:
        if name not in {**experiments, **sections}:
            raise BadInput(unknown(f"`only`: no experiment {shortened(name)}", name, [*experiments, *sections]))
    added = own.get("experiments")
    for name in added if isinstance(added, dict) else ():
        if name in experiments and name not in only:
            raise BadInput(f"`only` omits the experiment {name}, which this config adds; add it to `only`.")
    config = {name: each for name, each in config.items() if name != "only" and (name not in sections or name in only)}
    return config | {"experiments": {name: kept for name, kept in experiments.items() if name in only}}
