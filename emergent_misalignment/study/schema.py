"""The JSON schema of configs, with which editors complete, explain and check them.

    python -m emergent_misalignment.study.schema

writes config/schema.json. It describes the keys of all kinds of study in one object, because editors cannot say which
of several alternatives a mistake belongs to. It requires no key, because a config may extend another. What it cannot
express is checked when a config is loaded (model.py).
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from emergent_misalignment.files import write_json
from emergent_misalignment.study.config import DROPPABLE, FOLDER
from emergent_misalignment.study.errors import PATTERNS
from emergent_misalignment.study.model import KINDS

PATH = FOLDER / "schema.json"
LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}  # pydantic's names
OF_ALL_KINDS = {
    "extends": {
        "description": "The config whose values are used where this one has none: its path below config/, without .yaml.",
        "type": "string",
    },
    "only": {
        "description": "The experiments to keep, `ladder` and `worlds` among them; by default all.",
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
    },
}


def schema() -> dict:
    """The schema of a config of any kind. An entry that may be inherited may be null, which drops it."""
    _, models = models_json_schema([(kind, "validation") for kind in KINDS])
    definitions = _for_editors(models)["$defs"]
    kinds = [definitions.pop(kind.__name__) for kind in KINDS]
    properties = OF_ALL_KINDS | {name: value for kind in kinds for name, value in kind["properties"].items()}
    judge = definitions["JudgeModel"]["properties"]["kind"]
    judge |= {"type": "string", "enum": [definitions.pop("Grammar")["properties"]["kind"]["const"], judge.pop("const")]}
    for entries in (
        *(properties[name] for (name,) in DROPPABLE),
        definitions["ExperimentSettings"]["properties"]["conditions"],
    ):
        entries["additionalProperties"] = {"anyOf": [entries["additionalProperties"], {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study",
        "description": "One YAML file describes a study. A key that is not described here is an error.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": definitions,
    }


def _for_editors(part: Any) -> Any:
    """A part of pydantic's schema with limits in the terms of JSON Schema, and without required keys and titles."""
    if isinstance(part, list):
        return [_for_editors(each) for each in part]
    if not isinstance(part, dict):
        return part
    if patterns := part.pop("patternProperties", None):  # which would allow keys of any other form
        ((pattern, part["additionalProperties"]),) = patterns.items()
        part["propertyNames"] = {"pattern": pattern, "patternErrorMessage": PATTERNS[pattern]}
    noise = [name for name, kind in (("title", str), ("required", list)) if isinstance(part.get(name), kind)]
    noise += ["default"] if not part.get("default") or isinstance(part["default"], dict) else []
    return {LIMITS.get(name, name): _for_editors(value) for name, value in part.items() if name not in noise}


if __name__ == "__main__":
    write_json(PATH, schema())
