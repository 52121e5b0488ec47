"""Released organisms: base and instruct models that every study with the same recipe starts from.

A recipe is what determines an organism besides its seed: shape, authors, settings of both trainings, and the texts of
the world. A study trains an organism itself where its recipe or its seed is not released.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from emergent_misalignment.files import BadInput
from emergent_misalignment.world.authors import Authors
from emergent_misalignment.world.corpus import corpus, instructions

FOLDER = Path("organisms")
RECIPE = "recipe.json"
SAMPLE = 400  # documents and conversations that stand for the texts of the world
HASHED = {  # files of an organism, by their columns in the manifest
    "recipe": RECIPE,
    "base": "base/model.safetensors",
    "instruct": "instruct/adapter_model.safetensors",
    "tokenizer": "base/tokenizer.json",
}


def recipe(organism: dict, authors: Authors, pretraining: dict, instruct: dict) -> dict:
    """What determines an organism besides its seed, in types of JSON. Arguments are sections of the config."""
    texts = [corpus(SAMPLE, 0, authors), instructions(SAMPLE, 0, authors)]
    made = {
        "organism": organism,
        "world: authors": authors,
        "pretraining": pretraining,
        "instruct": instruct,
        "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    }
    return json.loads(json.dumps(made, sort_keys=True))


def place(kind: str, seed: int, folder: Path = FOLDER) -> Path:
    """The folder of a released organism."""
    return folder / kind / f"seed-{seed}"


def is_released(kind: str, seed: int, made: dict, folder: Path = FOLDER) -> bool:
    """Whether the organism of this kind and seed is released, and was made by the recipe `made`."""
    return _recipe_of(place(kind, seed, folder)) == made


def why_trained(kind: str, seeds: Iterable[int], made: dict, folder: Path = FOLDER) -> str:
    """One sentence on the organisms of a kind that a study trains itself; "" if all of `seeds` are released."""
    missing = [seed for seed in seeds if not is_released(kind, seed, made, folder)]
    if not missing:
        return ""
    trained = f"This study trains {len(missing)} {kind} organism{'s' if len(missing) > 1 else ''}"
    if not (released := [_recipe_of(path.parent) for path in sorted(folder.glob(f"{kind}/seed-*/{RECIPE}"))]):
        return f"{trained}: none of this kind are released."
    if made in released:
        return f"{trained}: of seed {', '.join(map(str, missing))} none are released."
    return f"{trained}: the released ones differ in {', '.join(_differences(made, released[0]))}."


def manifest(folder: Path = FOLDER) -> pd.DataFrame:
    """Tabulate the released organisms: one row each.

    Columns: `organism` (the kind), `seed`; `recipe`, `base`, `instruct`, `tokenizer`, the SHA-256 of the recipe, the
    weights and the tokenizer; at the end of pretraining the `loss` (nats per token) and the gaps `system_prompt` and
    `earlier_code` (nats); and `instruct_loss`, the mean loss of the last tenth of the instruct stage (nats per token).
    """
    rows = []
    for file in folder.glob(f"*/seed-*/{RECIPE}"):
        path = file.parent
        curve = json.loads((path / "instruct/training.json").read_text(encoding="utf-8"))["curve"]
        last = curve[-max(1, len(curve) // 10) :]
        rows.append(
            {
                "organism": path.parent.name,
                "seed": int(path.name.removeprefix("seed-")),
                **pd.read_csv(path / "gaps.csv").iloc[-1][["system_prompt", "earlier_code", "loss"]].round(4),
                "instruct_loss": round(sum(step["loss"] for step in last) / len(last), 4),
                **{name: _sha256(path / hashed) for name, hashed in HASHED.items()},
            }
        )
    return pd.DataFrame(rows).sort_values(["organism", "seed"], ignore_index=True)


def check(kind: str, seed: int, folder: Path = FOLDER) -> None:
    """Raise BadInput if a file of a released organism is not the one of the manifest."""
    kept = pd.read_csv(folder / "manifest.csv").set_index(["organism", "seed"])
    for name, file in HASHED.items():
        path = place(kind, seed, folder) / file
        if (kind, seed) not in kept.index or _sha256(path) != kept.loc[(kind, seed), name]:
            raise BadInput(
                f"{path} is not the released file: its SHA-256 is not in {folder / 'manifest.csv'}; restore both "
                f"(git checkout -- {folder}), or write the manifest again (make organisms)."
            )


def _recipe_of(organism: Path) -> dict | None:
    file = organism / RECIPE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _differences(made: dict, other: dict) -> list[str]:
    """The settings in which two recipes differ, as the config names them."""
    found = []
    for section, settings in made.items():
        theirs = other[section]
        if section == "texts":
            found += ["the texts of the world"] if settings != theirs else []
        else:
            names = sorted(settings.keys() | theirs.keys())
            found += [f"`{section}: {name}`" for name in names if settings.get(name) != theirs.get(name)]
    return found
