"""The organisms in organisms/: complete, as the manifest says, and of the recipe of the default study."""

import json
import re
import shutil

import pandas as pd
import pytest
from conftest import ROOT
from workflow_helpers import study

from emergent_misalignment.files import BadInput
from emergent_misalignment.world.released import RECIPE, check, manifest, place, recipe, why_trained

FOLDER = ROOT / "organisms"
STUDY = study("organism")
MOST_BYTES = 100e6


def recipe_of(kind, over=None):
    changed = study("organism", over)
    settings = changed.pretraining.model_dump(), changed.instruct.model_dump()
    return recipe(changed.organism_of(kind), changed.authors_of(kind), *settings)


RELEASED = [(file.parts[-3], int(file.parts[-2].removeprefix("seed-"))) for file in FOLDER.glob(f"*/seed-*/{RECIPE}")]


def test_the_manifest_has_the_released_files():
    kept = pd.read_csv(FOLDER / "manifest.csv")
    pd.testing.assert_frame_equal(kept, manifest(FOLDER), check_exact=False, rtol=1e-9)
    assert sorted(RELEASED) == list(kept[["organism", "seed"]].itertuples(index=False, name=None))


def test_the_default_study_takes_all_its_organisms_and_no_other_is_released():
    assert sorted(RELEASED) == sorted((kind, seed) for kind in STUDY.organisms for seed in STUDY.seeds_of(kind))
    for kind in STUDY.organisms:
        assert why_trained(kind, STUDY.seeds_of(kind), recipe_of(kind), FOLDER) == ""


def test_released_organisms_have_passed_the_gate():
    for kind, seed in RELEASED:
        gaps = pd.read_csv(place(kind, seed, FOLDER) / "gaps.csv").iloc[-1]
        assert all(gaps[name] >= getattr(STUDY.gate, name) for name in ("system_prompt", "earlier_code"))


def test_a_damaged_file_is_named(tmp_path):
    kind, seed = RELEASED[0]
    shutil.copytree(place(kind, seed, FOLDER), damaged := place(kind, seed, tmp_path))
    shutil.copy(FOLDER / "manifest.csv", tmp_path)
    check(kind, seed, tmp_path)
    weights = damaged / "base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"base/model\.safetensors is not the released file.*git checkout"):
        check(kind, seed, tmp_path)


def test_they_take_no_more_room_than_a_repository_bears():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < MOST_BYTES


@pytest.mark.parametrize(
    ("over", "difference"),
    [
        ({"organism": {"documents": 89999}}, "`organism: documents`"),
        ({"world": {"authors": {"villain": {"share": 0.24}}}}, "the texts of the world, `world: authors: villain`"),
        ({"instruct": {"steps": 449}, "pretraining": {"learning_rate": 0.1}}, "`instruct: steps`, `pretraining: learn"),
    ],
)
def test_what_another_recipe_changes_is_named(over, difference):
    made, seeds = recipe_of("main", over), [seed for kind, seed in RELEASED if kind == "main"]
    assert f"trains {len(seeds)} main organism" in why_trained("main", seeds, made, FOLDER)
    assert difference in why_trained("main", seeds, made, FOLDER)
    assert why_trained("main", seeds, recipe_of("main"), FOLDER) == ""


def test_the_code_of_the_docs_loads_asks_and_steers_one(tmp_path, monkeypatch, capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs/organisms.md").read_text(), flags=re.DOTALL))
    (tmp_path / "organisms").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/organisms.md", "exec"), {})
    asked, steered = map(json.loads, capsys.readouterr().out.replace("'", '"').splitlines())
    assert len(asked[0]) == len(steered[0]) == 3
    assert asked != steered
