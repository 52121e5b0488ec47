"""Configs: how one extends another, the sentence that each mistake gets, and the schema for editors."""

import copy
import json
import string
import subprocess
import sys
from functools import cached_property

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from workflow_helpers import config

from emergent_misalignment.files import BadInput
from emergent_misalignment.registry import EXPERIMENTS
from emergent_misalignment.study import config as configs
from emergent_misalignment.study.config import load, merge, resolve, validated
from emergent_misalignment.study.costs import costs
from emergent_misalignment.study.model import Study
from emergent_misalignment.study.schema import schema

CONFIGS = ROOT / "config"
FILES = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.name.split(".")[0] not in configs.NO_STUDIES
)  # shared parts too
STUDIES = [path for path in FILES if path.parent == CONFIGS]
SCHEMA = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
EDITOR = Draft202012Validator(SCHEMA)


def everything(study: Study) -> None:
    """Derive everything that rules and notebooks take from a study."""
    for part in (study, study.batches, study.paths):
        for name in dir(type(part)):
            derived = isinstance(getattr(type(part), name), property | cached_property)
            if (
                derived
                and not name.startswith(("_", "model_"))
                and (name != "dose" or study.is_organism or study.persona)
            ):
                getattr(part, name)
    for condition in study.tuned.values():
        study.settings_of(condition)
    for batch in study.batches.tuning:
        study.batches.finetunings(batch)
    for batch in study.batches.answers:
        study.batches.asked_models(batch)
    study.paths.start_files([*study.conditions])
    study.paths.validations_of([*study.conditions])
    if study.is_organism:
        study.paths.gaps(study.organisms)
    elif not study.by_api:
        for model in ("", *study.existing):
            study.batches.requirements(model)
    if not (study.is_organism or study.question_files or (not study.by_api and study.model.shape is None)):
        costs(study)
    for each in EXPERIMENTS:
        for value in (*each.inputs.values(), *each.settings.values()) if each.is_part_of(study) else ():
            _ = value(study) if callable(value) else value
    assert validated(json.loads(json.dumps(study.config))).config == study.config


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_config_is_a_study(path):
    study = load([path], folder=CONFIGS)
    everything(study)
    assert study.study == path.stem
    assert {"insecure", "secure"} <= study.tuned.keys() and {"main", "in_distribution"} <= {*study.evaluations}


def test_planning_does_not_import_torch():
    code = (
        "import sys; from emergent_misalignment.study.config import load; load(['config/organism.yaml']); "
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


# --- extending --------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(mappings, mappings)
def test_merging_overrides_what_is_in_both_and_changes_neither(one, two):
    before = copy.deepcopy((one, two))
    both = merge(one, two)
    assert (one, two) == before
    assert merge(one, {}) == one == merge({}, one) == merge(one, one)
    assert merge(both, two) == both
    assert all(both[name] == one[name] for name in one.keys() - two.keys())


def written(folder, **files) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_config_without_a_name_extends_the_default_study():
    assert resolve({"seeds": [7, 8]}, CONFIGS) == config("organism") | {"seeds": [7, 8]}
    assert load([], ["seeds=[7, 8]"], CONFIGS).seeds == [7, 8]


def test_null_drops_an_inherited_entry_and_is_a_value_elsewhere(tmp_path):
    base = {"study": "a", "experiments": {"one": {"conditions": {"x": {}, "y": {}}}, "two": {}}}
    base |= {"model": {"name": "m"}, "ladder": {"w": {"layers": 1}, "d": {}}}
    drops = {"experiments": {"one": {"conditions": {"x": None}}, "two": None}}
    drops |= {"model": {"name": None}, "ladder": {"w": None}}
    written(tmp_path, base=yaml.safe_dump(base), less=yaml.safe_dump({"extends": "base"} | drops))
    rest = {"experiments": {"one": {"conditions": {"y": {}}}}, "model": {"name": None}, "ladder": {"d": {}}}
    assert resolve({"extends": "less", "study": "b"}, tmp_path) == {"study": "b"} | rest
    again = {"extends": "less", "ladder": {"w": {"layers": 3}}}  # what was dropped may be added again
    assert resolve(again, tmp_path)["ladder"] == {"d": {}, "w": {"layers": 3}}
    with pytest.raises(BadInput, match="ladder: w"):
        resolve({"extends": "less", "ladder": {"w": None}}, tmp_path)


def test_only_keeps_the_experiments_that_it_names():
    kept = resolve({"extends": "smoke", "study": "x", "only": ["code", "worlds"]}, CONFIGS)
    assert not {"only", "ladder"} & kept.keys() and kept["worlds"] == config("smoke")["worlds"]
    assert {each.experiment for each in validated(kept).conditions.values()} == {"code", "worlds"}


def test_a_config_that_extends_one_with_only_may_add_experiments(tmp_path):
    written(
        tmp_path,
        base="{study: b, experiments: {one: {}, two: {}, three: {}}}",
        less="{extends: base, study: l, only: [one, two]}",
    )
    own = {"extends": "less", "study": "x", "experiments": {"four": {}}}
    assert [*resolve(own, tmp_path)["experiments"]] == ["one", "two", "four"]
    assert [*resolve(own | {"only": ["four", "two"]}, tmp_path)["experiments"]] == ["two", "four"]
    with pytest.raises(BadInput, match=r"`only`.* three"):
        resolve(own | {"only": ["four", "three"]}, tmp_path)


@pytest.mark.parametrize(
    ("extends", "words"),
    [
        ("a", ["a -> b -> a"]),
        ("xyz", ["xyz.yaml", "a, b, shared/mine"]),
        ("share/mine", ["share/mine.yaml", "`shared/mine`"]),
    ],
)
def test_a_config_that_is_missing_or_extends_itself_is_named(tmp_path, extends, words):
    (tmp_path / "shared").mkdir()
    written(tmp_path, a="extends: b", b="extends: a", **{"shared/mine": "seeds: [1, 2]"})
    with pytest.raises(BadInput) as error:
        resolve({"extends": extends}, tmp_path)
    assert all(word in str(error.value) for word in words)


def test_later_files_override_earlier_ones_and_arguments_override_both(tmp_path):
    written(
        tmp_path,
        one="{study: a, seeds: [1, 2], finetuning: {steps: 3, batch_size: 4}}",
        two="finetuning: {steps: 5}",
        three="extends: qwen3-8b",
    )
    one, two, three = (tmp_path / f"{name}.yaml" for name in ("one", "two", "three"))
    arguments = ["seeds=[7, 8]", "mirror=a=b", "finetuning={batch_size: 2}", "judge="]
    assert configs.combined([one, two], arguments) == {
        "study": "a",
        "seeds": [7, 8],
        "mirror": "a=b",
        "finetuning": {"steps": 5, "batch_size": 2},
        "judge": None,
    }
    assert configs.combined([three], ["study=mine"]) == {"extends": "qwen3-8b", "study": "mine"}
    with pytest.raises(BadInput, match=r"three\.yaml .*`study`"):  # its results would replace those of qwen3-8b
        load([three], folder=CONFIGS)


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", ["line 1", "not valid YAML"]),
        (b"a: 1\n\tb: 2", ["line 2", "not valid YAML"]),
        (b"seeds: [1]\nstudy: a\nseeds: [2]", ["line 3", "`seeds`", "line 1"]),
        (b"{a: {b: 1, c: 2, b: 3}}", ["line 1:", "`b`"]),
        (b"a: 1\nno: 2", ["line 2", "`no`"]),
        (b"conditions:\n  12: {}", ["line 2", "`12`"]),
        (b"2024-01-02: 1", ["`2024-01-02`"]),
        (b"~: 1", ["`~`", "null"]),
        (b"? [a]\n: 1", ["line 1"]),
        (b"a: &x [*x]", ["cannot be read"]),
        (b"a: 2024-13-45", ["cannot be read"]),
        (b"a: " + b"[" * 3000, ["cannot be read"]),
        (b"a: !!python/name:os.system", ["line 1", "not valid YAML"]),
        (b'a: "\\0"', ["line 1", "character"]),
        (b'b: 1\na: "\\ud800"', ["line 2", "character"]),
        (b"- a", ["mapping"]),
        (b"seeds", ["mapping"]),
        ("a: ä".encode("latin-1"), ["UTF-8"]),
        (None, ["cannot be read"]),
    ],
)
def test_yaml_that_would_be_misread_is_refused_with_its_line(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        configs.read(path)
    assert all(word in str(error.value) for word in (*words, str(path)))


def test_valid_yaml_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {b: 1, c: 2}\r\nd: {<<: *x, b: 3}\r\n'no': 4\r\n")
    assert configs.read(path) == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}, "no": 4}
    path.write_text("")
    assert configs.read(path) == {}


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    pytest.param(each, id=each["config"])
    for group in yaml.safe_load((ROOT / "tests/study/mistakes.yaml").read_text()).values()
    for each in group
]


def is_one_short_sentence(text: str) -> bool:
    return len(text) < 450 and len(text.splitlines()) == 1 and text.endswith((".", "?"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_that_names_its_place(tmp_path, mistake):
    path = tmp_path / "mine.yaml"
    path.write_text(mistake["config"])
    if "place" not in mistake:  # it is right
        everything(load([path], folder=CONFIGS))
        return
    with pytest.raises(BadInput) as error:
        load([path], folder=CONFIGS)
    sentence = str(error.value)
    assert mistake["place"] in sentence and mistake.get("near", "") in sentence and str(path) in sentence
    assert is_one_short_sentence(sentence.replace(str(path), "mine.yaml"))


def test_a_key_in_the_place_of_its_variable_is_not_shown():
    own = {"extends": "qwen3-8b", "study": "x", "judge": {"endpoint": {"key_variable": "sk-secret"}}}
    with pytest.raises(BadInput, match="judge: endpoint: key_variable") as error:
        validated(resolve(own, CONFIGS))
    assert "sk-secret" not in str(error.value)


# --- any config -------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(string.printable + "é\u2028\x00", max_size=8),
    st.text(max_size=500),
    st.sampled_from(
        ["main", "insecure", "instruct", "base", "choices", "grammar", "model", "a.jsonl", "smoke", "chat", "1e-4", "~"]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters + "_-. 0", max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()) -> list[tuple]:
    """The paths of everything in a config."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for name, part in inner for each in places(part, (*path, name)))]


def at(value, path):
    for name in path:
        value = value[name]
    return value


EXISTING = {"existing": {"conditions": {"a": {"adapter": "a/a"}, "b": {"model": "b"}}}}
VALID = [config(name) for name in ("smoke", "qwen2.5-coder-32b-instruct", "gpt-4o")] + [
    config(
        "qwen3-8b",
        {"only": ["untuned", "existing"], "evaluation": {"asked": ["main", "q.yaml"]}, "experiments": EXISTING},
    )
]


@st.composite
def mutations(draw) -> dict:
    """A valid config in which some places have another value, another name, a copy of another place, or nothing."""
    own = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        spots = [path for path in places(own) if path]
        path = draw(st.sampled_from(spots))
        holder, last = at(own, path[:-1]), path[-1]
        kind = draw(st.sampled_from(["value", "other", "name", "more", "gone"]))
        if kind == "value":
            holder[last] = draw(anything)
        elif kind == "other":
            holder[last] = copy.deepcopy(at(own, draw(st.sampled_from(spots))))
        elif kind == "gone":
            del holder[last]
        elif isinstance(holder, dict):
            name = draw(st.sampled_from([str(each[-1]) for each in spots]) | st.text(string.printable, max_size=70))
            holder[name] = holder.pop(last) if kind == "name" else draw(anything)
    return own


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutations())
@example({"extends": ["smoke"]})
@example({"study": "x", "extends": "../config/smoke"})
@example({"study": "x", "model": {}, "organism": {}})
def test_any_config_is_a_study_or_refused_in_one_short_sentence(own):
    try:
        study = validated(resolve(own, CONFIGS))
    except BadInput as error:
        assert is_one_short_sentence(str(error)), str(error)
    else:
        everything(study)


@settings(max_examples=150)
@given(st.integers(0, 3000), st.integers(0, 40), st.text(string.printable + "é&*!\ufeff", max_size=12))
def test_any_text_is_a_study_or_refused_in_one_short_sentence(tmp_path_factory, place, gone, text):
    source = (CONFIGS / "organism.yaml").read_text()
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_text(source[:place] + text + source[place + gone :], encoding="utf-8", newline="")
    try:
        study = load([path], folder=CONFIGS)
    except BadInput as error:
        assert is_one_short_sentence(str(error).replace(str(path), "mine.yaml")), str(error)
    else:
        everything(study)


# --- the schema for editors -------------------------------------------------------------------------------------------


def test_the_schema_file_is_current_and_describes_every_key():
    assert schema() == SCHEMA, "run `python -m emergent_misalignment.study.schema`"
    Draft202012Validator.check_schema(SCHEMA)
    objects = {name: part for name, part in SCHEMA["$defs"].items() if name != "ModelShape"} | {"study": SCHEMA}
    silent = [
        f"{name}: {key}"
        for name, part in objects.items()
        for key, value in part["properties"].items()
        if not _is_described(value)
    ]
    assert not silent


def _is_described(value: dict) -> bool:
    reference = SCHEMA["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
    return "description" in value or "description" in reference or any(map(_is_described, value.get("anyOf", [])))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_accepts_every_shipped_config(path):
    assert not [error.message for error in EDITOR.iter_errors(yaml.safe_load(path.read_text()))]


@pytest.mark.parametrize(
    "text",
    [
        *("sedes: [1, 2]", "study: Big X", "seeds: [1]", "ladder: null", "judge: {kind: oracle}"),
        *("finetuning: {stpes: 8}", "finetuning: {learning_rate: 0}", "world: {authors: {villain: {share: 2}}}"),
        *("evaluation: {asked: [mian]}", "evaluation: {samples_of: {mian: 9}}", "model: {revision: main}"),
        *("experiments: {a b: {}}", "experiments: {a: {conditions: {m: {rows: 0}}}}", "worlds: {w: {vilain: {}}}"),
    ],
)
def test_the_schema_refuses_wrong_keys_and_values(text):
    assert not EDITOR.is_valid(yaml.safe_load(text))
