"""What config/schema.yaml refuses, in one sentence: the wrong key, where it stands, and the nearest right one."""

import difflib
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jsonschema
import yaml

from emergent_misalignment.files import BadInput, shortened

PATH = Path(__file__).resolve().parents[2] / "config/schema.yaml"
KINDS = {
    **{"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"},
    **{"array": "a list", "object": "a mapping (lines such as `name: value`)", "null": "null"},
}
BOUNDS = {
    **{"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"},
    "multipleOf": "a multiple of",
}


def check(config: dict) -> None:
    """Hold a config against the schema, and give it the schema's defaults. Raises BadInput where it does not fit.

    A key that the schema does not have is told first: it is most often the reason why another is missing.
    """
    rules = schema()
    errors = list(_Validator(rules).iter_errors(config))
    if errors:
        raise BadInput(_sentence(min(errors, key=_urgency), config))
    for name, rule in rules["properties"].items():
        if "default" in rule:
            config.setdefault(name, rule["default"])


@cache
def schema() -> dict:
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def closest(name: str, known: Iterable[str]) -> str:
    """The one of the known names that this may be a slip for, or nothing."""
    by_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_case, 1, cutoff=0.6)
    return by_case[near[0]] if near else ""


# JSON takes 1.0 for a whole number and has no infinity; a seed of 1.0 would name other files than 1.
_types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ),
    }
)


def _pattern(_, pattern: str, value, rule: dict):
    """JSON Schema's `$` is the end of the text; Python's may be followed by a line's end."""
    if isinstance(value, str) and ("\n" in value or not re.search(pattern, value)):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, validators={"pattern": _pattern}, type_checker=_types
)


def _urgency(error: jsonschema.ValidationError) -> tuple:
    order = ("not", "additionalProperties", "type", "required")
    rank = order.index(error.validator) if error.validator in order else 2
    return rank, len(error.absolute_path), [str(part) for part in error.absolute_path]


def _sentence(error: jsonschema.ValidationError, config: dict) -> str:
    path = list(error.absolute_path)
    place = _place(path)
    rule, value = error.validator_value, error.instance
    if "propertyNames" in error.absolute_schema_path:
        return _name(error, place)
    match error.validator:
        case "additionalProperties":
            return _unknown(error, place)
        case "not":  # a section that this kind of study has no use for
            return f"A study {_study(error, config)} has no {place}; remove it."
        case "required":
            return _missing(error, path, config)
        case "type":
            return _wrong_type(path, [rule] if isinstance(rule, str) else rule, value)
        case "enum":
            return f"{_capital(place)} has no such value as {_shown(value)}; {_choice(value, rule)}"
        case "pattern":
            shown = "that text" if path[-1] == "key_variable" else _shown(value)  # it may be the key itself
            return f"{_capital(place)} cannot be {shown}; write {_wanted(error.schema)}."
        case "uniqueItems":
            return f"{_capital(place)} has an entry twice; remove one."
        case "minItems" | "minProperties":
            hint = "; to drop what is inherited, set the experiment to null" if path[-1] == "conditions" else ""
            return f"{_capital(place)} has {len(value)} entries and needs at least {rule}{hint}."
        case bound if bound in BOUNDS:
            return f"{_capital(place)} must be {BOUNDS[bound]} {rule}, not {_shown(value)}."
    return f"{_capital(place)} cannot be {_shown(value)}; config/schema.yaml says what may stand there."


def _place(path: list) -> str:
    """`experiments: code: conditions`; an entry of a list by its number, counted from 1."""
    parts = [f"entry {part + 1}" if isinstance(part, int) else shortened(part, 40) for part in path]
    return f"`{shortened(': '.join(parts), 160)}`" if parts else "the config"


def _shown(value) -> str:
    if isinstance(value, str):
        return f"the text {shortened(value)!r}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "an empty mapping" if value == {} else shortened(str(value))


def _study(error: jsonschema.ValidationError, config: dict) -> str:
    if "model" not in config:
        return "of an organism (without `model`)"
    return "of OpenAI's models" if list(error.absolute_schema_path).count("then") > 1 else "of a real model"


def _wrong_type(path: list, kinds: list[str], value) -> str:
    wanted = ", or ".join(KINDS[each] for each in kinds)
    hint = _number_hint(kinds, value)
    if value is None and path in (["experiments"], ["ladder"], ["worlds"]):
        hint = "; to drop what is inherited, set each of its entries to null"
    return f"{_capital(_place(path))} must be {wanted}, not {_shown(value)}{hint}."


def _number_hint(kinds: list[str], value) -> str:
    """How a number is written that YAML takes for a text, such as 1e-4, or that is whole but not written so."""
    if not {"integer", "number"} & {*kinds}:
        return ""
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if number == int(number) and abs(number) < 1e15 and "integer" in kinds:
        return f"; write {int(number)}"
    if "number" not in kinds:
        return ""
    mantissa, exponent = f"{number:e}".split("e")
    return f": YAML wants a point and a sign in a power of ten; write {float(mantissa)}e{int(exponent):+}"


def _unknown(error: jsonschema.ValidationError, place: str) -> str:
    rules = error.schema
    known = list(rules.get("properties", {}))
    known += [each for pattern in rules.get("patternProperties", {}) for each in pattern.strip("^$()").split("|")]
    unknown = next(name for name in error.instance if name not in known)
    sections = [name for name, rule in schema()["properties"].items() if unknown in rule.get("properties", {})]
    if near := closest(unknown, known):
        hint = f"did you mean `{near}`?"
    elif sections:
        hint = f"it stands below {' or '.join(f'`{name}`' for name in sections)}."
    else:
        hint = f"it may have {shortened(', '.join(known), 200)}."
    return f"{_capital(place)} has no key `{shortened(unknown)}`; {hint}"


def _missing(error: jsonschema.ValidationError, path: list, config: dict) -> str:
    missing = next(name for name in error.validator_value if name not in error.instance)
    siblings = config
    for part in path[:-1]:
        siblings = siblings[part]
    near = (
        closest(path[-1], [each for each in siblings if each != path[-1]]) if path and isinstance(path[-1], str) else ""
    )
    hint = f", or did you mean `{near}`?" if near else "."
    if not path:
        hint = ", or extend a config that has it (`extends: NAME`)."
    return f"{_capital(_place(path))} lacks `{missing}`; add it{hint}"


def _name(error: jsonschema.ValidationError, place: str) -> str:
    """A key whose name is of the wrong form, or none of those that may stand there."""
    name = shortened(str(error.instance))
    if error.validator == "enum":
        return f"{_capital(place)} has no key `{name}`; {_choice(error.instance, error.validator_value)}"
    return f"{_capital(place)} cannot have the key {name!r}; write {_wanted(error.schema)}."


def _choice(value, known: list) -> str:
    texts = [str(each) for each in known if each is not None]
    near = closest(value, texts) if isinstance(value, str) else ""
    return f"did you mean {near}?" if near else f"choose one of {shortened(', '.join(texts), 200)}."


def _wanted(rule: dict) -> str:
    """What a text must look like. Editors show the same."""
    return rule.get("patternErrorMessage") or f"what fits {rule.get('pattern', 'the schema')}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
