"""Configs: how one extends another, what the schema refuses, and what a plan refuses."""

import copy

import jsonschema
import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.evaluation.published_questions import FILES_OF
from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow.config import merge, resolve
from emergent_misalignment.workflow.plan import Plan
from emergent_misalignment.world.evaluations import SEEDED, UNSEEDED

SCHEMA = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
STUDIES = sorted(
    path.stem
    for path in (ROOT / "config").glob("*.yaml")
    if path.stem not in ("schema", "claims.schema", "claims", "published")
)
values = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def config(name: str) -> dict:
    return resolve(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()), ROOT / "config")


@pytest.mark.parametrize("name", STUDIES)
def test_every_config_fits_the_schema_and_makes_a_plan(name):
    settings = config(name)
    jsonschema.validate(settings, SCHEMA)
    assert settings["study"] == name
    plan = Plan(settings)
    assert {"insecure", "secure"} <= plan.tuned.keys()
    assert {"main", "in_distribution"} <= set(plan.evaluations)


def test_the_schema_names_the_evaluations_that_the_world_or_the_published_files_have():
    assert set(SCHEMA["$defs"]["evaluation"]["enum"]) == {*UNSEEDED, *SEEDED, *FILES_OF}


@given(mappings, mappings)
def test_what_is_laid_over_a_config_holds_and_the_rest_stays(one, two):
    both = merge(one, two)
    assert merge(one, {}) == one == merge({}, one) == merge(one, one)
    assert merge(both, two) == both
    assert {name: both[name] for name in one.keys() - two.keys()} == {
        name: one[name] for name in one.keys() - two.keys()
    }


@given(mappings, mappings)
def test_configs_are_not_changed_by_what_is_laid_over_them(one, two):
    before = copy.deepcopy((one, two))
    merge(one, two)
    assert (one, two) == before


def test_what_names_no_study_extends_the_default_one():
    assert resolve({"seeds": [7, 8]}, ROOT / "config") == config("organism") | {"seeds": [7, 8]}


def test_an_inherited_condition_is_dropped_by_null_and_other_nulls_are_values(tmp_path):
    base = {"study": "a", "experiments": {"one": {"conditions": {"x": {}, "y": {}}}, "two": {}}, "model": {"name": "m"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    own = {"extends": "base", "study": "b", "experiments": {"one": {"conditions": {"x": None}}, "two": None}}
    settings = resolve(own | {"model": {"name": None}}, tmp_path)
    assert settings == {"study": "b", "experiments": {"one": {"conditions": {"y": {}}}}, "model": {"name": None}}


def test_a_config_that_is_not_there_or_extends_itself_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(BadInput, match="extends itself"):
        resolve({"extends": "a"}, tmp_path)
    with pytest.raises(BadInput, match=r"no config .*c\.yaml to extend; choose one of a, b"):
        resolve({"extends": "c"}, tmp_path)
    (tmp_path / "d.yaml").write_text("a: [")
    with pytest.raises(BadInput, match=r"d\.yaml is not valid YAML"):
        resolve({"extends": "d"}, tmp_path)


@pytest.mark.parametrize(
    ("study", "experiments", "words"),
    [
        ("smoke", {"more": {"conditions": {"insecure": {"dataset": "secure"}}}}, "insecure in two experiments"),
        ("smoke", {"more": {"conditions": {"late": {"dataset": "secure", "checkpoints": [9]}}}}, "after step 9"),
        ("smoke", {"in_context": None, "more": {"conditions": {"in_context": {"dataset": "secure"}}}}, "untuned model"),
        ("gpt-4o", {"more": {"conditions": {"late": {"dataset": "secure", "checkpoints": [9]}}}}, "API's fine-tuning"),
        ("qwen3-8b", {"more": {"conditions": {"b": {"dataset": "secure", "start": "base"}}}}, "starts from base"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(study, experiments, words):
    settings = resolve({"extends": study, "study": study, "experiments": experiments}, ROOT / "config")
    jsonschema.validate(settings, SCHEMA)
    with pytest.raises(BadInput, match=words):
        Plan(settings)
