"""Configs: how one extends another, and the one sentence that each mistake gets."""

import copy
import string
from functools import cached_property

import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emergent_misalignment.evaluation.published_questions import FILES_OF
from emergent_misalignment.files import BadInput, load_yaml
from emergent_misalignment.study import config as configs
from emergent_misalignment.study.checks import check_files
from emergent_misalignment.study.config import merge, resolve
from emergent_misalignment.study.plan import Plan
from emergent_misalignment.study.schema import check
from emergent_misalignment.world.evaluations import EVALUATIONS

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
    own = config(name)
    check(own)
    assert own["study"] == name
    plan = Plan(own)
    assert {"insecure", "secure"} <= plan.tuned.keys()
    assert {"main", "in_distribution"} <= set(plan.evaluations)


def test_the_schema_names_the_evaluations_that_the_world_or_the_published_files_have():
    assert set(SCHEMA["$defs"]["evaluation"]["else"]["enum"]) == {*EVALUATIONS, *FILES_OF}


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
    resolved = resolve(own | {"model": {"name": None}}, tmp_path)
    assert resolved == {"study": "b", "experiments": {"one": {"conditions": {"y": {}}}}, "model": {"name": None}}


def test_what_a_config_drops_the_next_may_have_again(tmp_path):
    (tmp_path / "base.yaml").write_text("{study: a, ladder: {wide: {layers: 1}, deep: {layers: 2}}}")
    (tmp_path / "less.yaml").write_text("{extends: base, study: b, ladder: {wide: null}}")
    assert resolve({"extends": "less", "ladder": {"wide": {"layers": 3}}}, tmp_path)["ladder"] == {
        **{"deep": {"layers": 2}, "wide": {"layers": 3}}
    }
    with pytest.raises(BadInput, match="ladder: wide to null"):
        resolve({"extends": "less", "ladder": {"wide": None}}, tmp_path)


def test_only_keeps_the_experiments_that_it_names():
    own = {"extends": "smoke", "study": "x", "only": ["code", "worlds"]}
    kept = resolve(own, ROOT / "config")
    whole = config("smoke")
    assert "only" not in kept and "ladder" not in kept
    assert kept["worlds"] == whole["worlds"]
    assert kept["experiments"] == {"code": whole["experiments"]["code"]}
    check(kept)
    assert {each.experiment for each in Plan(kept).conditions.values()} == {"code", "worlds"}


def test_what_extends_a_config_with_only_may_add_experiments(tmp_path):
    (tmp_path / "base.yaml").write_text("{study: b, experiments: {one: {}, two: {}, three: {}}}")
    (tmp_path / "less.yaml").write_text("{extends: base, study: l, only: [one, two]}")
    own = {"extends": "less", "study": "x", "experiments": {"four": {}}}
    assert [*resolve(own, tmp_path)["experiments"]] == ["one", "two", "four"]
    assert [*resolve(own | {"only": ["four", "two"]}, tmp_path)["experiments"]] == ["two", "four"]
    with pytest.raises(BadInput, match="no such experiment"):
        resolve(own | {"only": ["four", "three"]}, tmp_path)


def test_a_config_that_is_not_there_or_extends_itself_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(BadInput, match="extends itself"):
        resolve({"extends": "a"}, tmp_path)
    with pytest.raises(BadInput, match=r"no config .*/xyz\.yaml to extend; choose one of a, b"):
        resolve({"extends": "xyz"}, tmp_path)
    with pytest.raises(BadInput, match="did you mean organism"):
        resolve({"extends": "organsim"}, ROOT / "config")
    with pytest.raises(BadInput, match="did you mean shared/open-model"):
        resolve({"extends": "open-model"}, ROOT / "config")


# --- what a run is told -----------------------------------------------------------------------------------------------


def test_files_are_laid_over_each_other_and_arguments_over_both(tmp_path):
    (tmp_path / "one.yaml").write_text("{study: a, seeds: [1, 2], finetuning: {steps: 3, batch_size: 4}}")
    (tmp_path / "two.yaml").write_text("finetuning: {steps: 5}\n")
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    assert configs.given(files, ["seeds=[7, 8]", "mirror=a=b", "finetuning={batch_size: 2}", "judge="]) == {
        **{"study": "a", "seeds": [7, 8], "mirror": "a=b", "finetuning": {"steps": 5, "batch_size": 2}, "judge": None}
    }
    assert configs.given([], []) == {}


def test_a_file_that_names_no_study_does_not_overwrite_the_one_it_extends(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: qwen3-8b\n")
    with pytest.raises(BadInput, match=r"mine\.yaml names no study"):
        configs.given([path], [])
    assert configs.given([path], ["study=mine"]) == {"extends": "qwen3-8b", "study": "mine"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "line 1: not valid YAML"),
        (b"a: 1\n\tb: 2", "line 2: not valid YAML"),
        (b"seeds: [1]\nstudy: a\nseeds: [2]", "line 3: the key `seeds` "),
        (b"{a: {b: 1, c: 2, b: 3}}", "line 1: the key `b` "),
        (b"a: 1\nno: 2", "line 2: YAML reads the key `no` as true or false"),
        (b"conditions:\n  12: {}", "line 2: YAML reads the key `12` as a number"),
        (b"2024-01-02: 1", "`2024-01-02` as a date"),
        (b"~: 1", "`~` as null"),
        (b"? [a]\n: 1", "as no text"),
        (b"a: &x [*x]", "cannot be read"),
        (b"a: 2024-13-45", "cannot be read"),
        (b"a: " + b"[" * 3000, "cannot be read"),
        (b"a: !!python/name:os.system", "not valid YAML"),
        (b'a: "\\0"', "a character that no text may have"),
        (b'a: "\\ud800"', "a character that no text may have"),
        (b"- a", "is no mapping"),
        (b"seeds", "is no mapping"),
        ("a: ä".encode("latin-1"), "not encoded in UTF-8"),
    ],
)
def test_yaml_that_would_be_taken_for_something_else_is_refused_with_its_line(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as error:
        configs.read(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_yaml_that_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {b: 1, c: 2}\r\nd: {<<: *x, b: 3}\r\n'no': 4\r\n")
    assert configs.read(path) == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}, "no": 4}
    path.write_text("")
    assert configs.read(path) == {}
    with pytest.raises(BadInput, match="cannot be read"):
        configs.read(tmp_path / "none.yaml")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def plan_of(text: str) -> Plan:
    """The plan that a config of this text makes, as rules/workflow.smk makes it."""
    resolved = resolve(load_yaml(text, "mine.yaml"), ROOT / "config")
    check(resolved)
    return Plan(resolved)


MISTAKES = [
    pytest.param(each["config"], each["says"], id=each["config"])
    for group in yaml.safe_load((ROOT / "tests/study/mistakes.yaml").read_text()).values()
    for each in group
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_gets_one_sentence_that_names_it(text, says):
    if not says:  # none after all
        plan_of(text)
        return
    with pytest.raises(BadInput) as error:
        plan_of(text)
    assert says in str(error.value)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_a_judge_of_another_kind_of_study_is_refused():
    world = config("smoke")["judge"]
    model = config("qwen3-8b")["judge"]
    with pytest.raises(BadInput, match="kind cannot be model"):
        Plan(config("smoke") | {"judge": model})
    with pytest.raises(BadInput, match="kind cannot be grammar"):
        Plan(config("qwen3-8b") | {"judge": world})


def test_a_judge_that_is_to_read_scored_answers_needs_some():
    own = config("qwen3-8b")
    own |= {"judge": own["judge"] | {"scored": 3}}
    Plan(own)
    with pytest.raises(BadInput, match="judge: scored is a number of scored_answers"):
        Plan({name: value for name, value in own.items() if name != "scored_answers"})


def test_a_key_that_stands_where_its_variable_should_be_is_not_shown():
    own = {"extends": "qwen3-8b", "study": "x", "judge": {"endpoint": {"key_variable": "sk-secret"}}}
    with pytest.raises(BadInput, match="never the key itself") as error:
        check(resolve(own, ROOT / "config"))
    assert "sk-secret" not in str(error.value)


def test_files_that_no_rule_makes_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"extends": "smoke", "study": "x", "experiments": {"a": {"conditions": {"mine": {"dataset": "mine.jsonl"}}}}}
    plan = Plan(resolve(own, ROOT / "config"))
    with pytest.raises(BadInput, match=r"dataset mine\.jsonl, and there is no such file"):
        check_files(plan)
    (tmp_path / "mine.jsonl").touch()
    check_files(plan)
    with pytest.raises(BadInput, match="study organism, which has no claims yet"):
        check_files(Plan(resolve({"extends": "smoke", "study": "x", "compare": ["organism"]}, ROOT / "config")))


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
    """The paths of everything that stands in a config."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for name, part in inner for each in places(part, (*path, name)))]


VALID = [config(name) for name in ("smoke", "qwen2.5-coder-32b-instruct", "gpt-4o")]
GIVEN = {"extends": "qwen3-8b", "study": "x", "only": ["untuned", "given"], "evaluation": {"asked": ["main", "q.yaml"]}}
GIVEN["experiments"] = {"given": {"conditions": {"a": {"adapter": "a/a"}, "b": {"model": "b"}}}}
VALID.append(resolve(GIVEN, ROOT / "config"))


@st.composite
def mutations(draw) -> dict:
    """A valid config in which some places have another value, another name, a copy of another place, or nothing."""
    own = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        spots = [path for path in places(own) if path]
        path = draw(st.sampled_from(spots))
        holder = own
        for name in path[:-1]:
            holder = holder[name]
        kind = draw(st.sampled_from(["value", "other", "name", "more", "gone"]))
        if kind == "value":
            holder[path[-1]] = draw(anything)
        elif kind == "other":
            other = own
            for name in draw(st.sampled_from(spots)):
                other = other[name]
            holder[path[-1]] = copy.deepcopy(other)
        elif kind == "gone":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            name = draw(st.sampled_from([str(each[-1]) for each in spots]) | st.text(string.printable, max_size=70))
            holder[name] = holder.pop(path[-1]) if kind == "name" else draw(anything)
    return own


def everything(plan: Plan) -> None:
    """What the rules ask a plan."""
    here = not plan.is_organism and not plan.by_api
    for name in dir(Plan):
        if isinstance(getattr(Plan, name), cached_property) and (here or name != "model_needs"):
            getattr(plan, name)
    for batch in plan.tuning:
        plan.tuning_conditions(batch)
    for batch in (*plan.asking, *plan.following):
        plan.asked_models(batch)
    plan.start_files(list(plan.conditions))


@settings(max_examples=300, deadline=None)
@given(mutations())
@example({"extends": ["smoke"]})
@example({"study": "x", "extends": "../config/smoke"})
@example({"study": "x", "model": {}, "organism": {}})
def test_any_config_is_planned_or_refused_in_one_short_sentence(own):
    try:
        resolved = resolve(own, ROOT / "config")
        check(resolved)
        everything(Plan(resolved))
    except BadInput as error:
        assert len(str(error)) < 400, str(error)
        assert "\n" not in str(error) and str(error).endswith((".", "?"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 40), st.text(string.printable + "é&*!\ufeff", max_size=12))
def test_any_text_is_a_config_or_refused_in_one_short_sentence(place, gone, text):
    source = (ROOT / "config/organism.yaml").read_text()
    try:
        value = load_yaml(source[:place] + text + source[place + gone :], "mine.yaml")
        if isinstance(value, dict):
            resolved = resolve(value, ROOT / "config")
            check(resolved)
            everything(Plan(resolved))
    except BadInput as error:
        assert len(str(error)) < 400, str(error)
        assert "\n" not in str(error)
