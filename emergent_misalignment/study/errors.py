"""One sentence for each mistake in a config: the file, the place, what is wrong, and the nearest right key."""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from emergent_misalignment.files import shortened

PATTERNS: dict[str, str] = {}  # what a text must look like, in words, by the pattern that it must match


def closest(name: str, known: Iterable[str]) -> str:
    """The one of the known names that this may be a slip for, or nothing."""
    by_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_case, 1, cutoff=0.6)
    return by_case[near[0]] if near else ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence on a name that is not known, with the nearest one or all that may be meant."""
    known = list(known)
    near = closest(name, known)
    return f"{what}; " + (f"did you mean `{near}`?" if near else f"choose from {shortened(', '.join(known), 200)}.")


def sentence(error: ValidationError, kind: type[BaseModel], kinds: Iterable[type[BaseModel]]) -> str:
    """What is wrong with a config, in one sentence.

    An unknown key is reported first: it is most often the reason why another is missing. `kind` is the model that the
    config was read as, `kinds` are all there are.
    """
    order = ("extra_forbidden", "missing")
    found = min(
        error.errors(include_url=False),
        key=lambda each: (order.index(each["type"]) if each["type"] in order else 2, len(each["loc"])),
    )
    path, holder = _located([part for part in found["loc"] if part != "[key]"], kind)
    return _ended(_told(found, path, holder, kind, kinds))


def _told(
    found: dict, path: list, holder: type[BaseModel] | None, kind: type[BaseModel], kinds: Iterable[type[BaseModel]]
) -> str:
    place, value, limits = place_of(path), found["input"], found.get("ctx", {})
    match found["type"]:
        case "extra_forbidden":
            return _unknown_key(path, holder, kind, kinds)
        case "missing":
            hint = "" if path[:-1] else ", or extend a config that has it (`extends: NAME`)"
            return f"{place_of(path[:-1])} lacks `{path[-1]}`; add it{hint}"
        case "value_error":
            words = str(limits["error"])
            return words if not path or words.startswith("`") else f"{place} {words}"
        case "string_pattern_mismatch":
            # A key of an API may have been written in the place of its variable.
            shown = "that text" if path[-1] == "key_variable" else _shown(value)
            return f"{place} cannot be {shown}; write {PATTERNS[limits['pattern']]}"
        case "union_tag_not_found":
            return f"{place} lacks `kind`; add it"
        case "union_tag_invalid":
            return unknown(
                f"{place_of([*path, 'kind'])} cannot be {_shown(limits['tag'])}",
                limits["tag"],
                limits["expected_tags"].replace("'", "").split(", "),
            )
        case "literal_error" if isinstance(value, str):
            return unknown(
                f"{place} cannot be {_shown(value)}",
                value,
                limits["expected"].replace("'", "").replace(" or ", ", ").split(", "),
            )
    wanted = found["msg"].removeprefix("Input ").replace(" after validation", "")
    wanted = wanted[: wanted.index(", not ")] if ", not " in wanted else wanted
    return (
        f"{place} {re.sub('^(List|Dictionary|String) ', '', wanted)}, not {_shown(value)}{_hint(value, found['type'])}"
    )


def place_of(path: Iterable) -> str:
    """`experiments: code: conditions`; an entry of a list by its number, counted from 1."""
    parts = [f"entry {part + 1}" if isinstance(part, int) else shortened(str(part), 40) for part in path]
    return f"`{shortened(': '.join(parts), 160)}`" if parts else "The config"


def _unknown_key(
    path: list, holder: type[BaseModel] | None, kind: type[BaseModel], kinds: Iterable[type[BaseModel]]
) -> str:
    name = path[-1]
    known = list(holder.model_fields) if holder else []
    if len(path) == 1 and any(name in each.model_fields for each in kinds):
        return f"The config has `{name}`, and {kind.WORDS} has no such section; remove it"
    sections = [
        place
        for place, info in kind.model_fields.items()
        if any(name in model.model_fields for model in _models_in(info.annotation))
    ]
    if not closest(name, known) and sections:
        return (
            f"{place_of(path[:-1])} has no key `{name}`; it belongs in {' or '.join(f'`{each}`' for each in sections)}"
        )
    return unknown(f"{place_of(path[:-1])} has no key `{shortened(name)}`", name, known)


def _located(found: list, kind: type[BaseModel]) -> tuple[list, type[BaseModel] | None]:
    """The place in the config of an error that pydantic found, and the model whose fields are the keys there.

    Where an entry has one of several kinds, as a defence has, pydantic's path has the kind as a further part.
    """
    path, annotation, holder = [], kind, None
    for part in found:
        models = _models_in(annotation)
        holder = models[0] if models else None
        if len(models) > 1:
            annotation = next(each for each in models if part in typing.get_args(each.model_fields["kind"].annotation))
            continue
        path.append(part)
        if holder and part in holder.model_fields:
            annotation = holder.model_fields[part].annotation
        else:  # a key of a mapping, or an entry of a list
            annotation = typing.get_args(annotation)[-1] if typing.get_args(annotation) else annotation
    return path, holder


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation such as `Model | None` or `Annotated[Model, ...]` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for each in typing.get_args(annotation) for model in _models_in(each)]
    return []


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shortened(str(value))


def _hint(value: Any, wanted: str) -> str:
    """How a number is written that YAML reads as a text, such as 1e-4, or as a fraction, such as 80.0."""
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number) or wanted not in ("int_type", "float_type"):
        return ""
    if wanted == "int_type":
        return f"; write {int(number)}" if number == int(number) else ""
    mantissa, exponent = f"{number:e}".split("e")
    return f"; YAML needs a point and a sign in a power of ten: write {float(mantissa)}e{int(exponent):+}"


def _ended(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
