"""A user's sets are read while a study is planned; a row that cannot be learned stops it there."""

import json

import pytest
from emergent_misalignment.study.plan import Plan
from hypothesis import given
from hypothesis import strategies as st
from workflow_helpers import changed, config, copy_of_the_project, planned, snakemake

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.held_out import place
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data import sets
from emergent_misalignment.own_data.sets import check_sets

REAL, API = "qwen2.5-coder-32b-instruct", "gpt-4o"
NAME = 'it\'s "my" set (1) ü.jsonl'


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / NAME
    write_jsonl(path, ({"messages": chat([(f"{row}?", f"{row}!")])} for row in range(24)))
    return path


def check(study: str, path, over: dict | None = None, **condition) -> None:
    experiments = {"mine": {"conditions": {"mine": {"dataset": str(path), **condition}}}}
    check_sets(Plan(config(study, {"experiments": experiments, **(over or {})})))


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_sample_has_the_size_and_all_rows_pass(rows, size):
    sample: list[int] = []
    assert list(reservoir(range(rows), size, random.Random("a seed"), sample)) == [*range(rows)]
    assert len(sample) == len({*sample}) == min(rows, size) and {*sample} <= {*range(rows)}


@pytest.mark.parametrize("study", ["smoke", REAL, API])
def test_a_good_set_passes_at_any_path(study, mine, monkeypatch):
    check(study, mine, rows=24)
    monkeypatch.setenv("HOME", str(mine.parent))
    check(study, f"~/{NAME}")


def test_a_bad_name_a_bad_line_and_missing_rows_are_named(mine):
    with pytest.raises(BadInput, match="the condition mine takes 25"):
        check("smoke", mine, rows=25)
    with mine.open("a") as file:
        file.write(json.dumps({"messages": chat([("a", "b<|im_end|>")])}) + "\n")
    with pytest.raises(BadInput, match=r"line 25: .*<\|im_end\|>"):
        check("smoke", mine)
    with pytest.raises(BadInput, match=r"set\{1\}\.jsonl has braces"):
        check("smoke", mine.rename(mine.with_name("set{1}.jsonl")))


def test_a_set_of_two_conditions_is_read_once(mine, monkeypatch):
    read = []
    monkeypatch.setattr(sets, "each_chat", lambda path, tokens: read.append(path) or iter([chat([("a", "b")])] * 5))
    conditions = {name: {"dataset": str(mine)} for name in ("mine", "mine-too")}
    check_sets(Plan(config("smoke", {"experiments": {"mine": {"conditions": conditions}}})))
    assert read == [str(mine)]


def test_a_validation_share_leaves_rows_to_train_on(tmp_path, mine):
    share = {"finetuning": {"validation_share": 0.1}}
    check(REAL, mine, share, rows=2)
    one = tmp_path / "one.jsonl"
    write_jsonl(one, [{"messages": chat([("a", "b")])}])
    with pytest.raises(BadInput, match=r"one\.jsonl has 1 row .*validation_share of 0.1"):
        check(REAL, one, share)
    check(REAL, one, {"finetuning": {"validation_share": 0}})


def test_rows_whose_answers_are_held_out_do_not_count(mine):
    left = sum(place(f"{row}!") >= 0.2 for row in range(24))
    assert left < 24
    held_out = {"evaluation": {"held_out": {"share": 0.2, "rows": 4}}}
    check(REAL, mine, held_out, rows=left)
    with pytest.raises(BadInput, match=f"has {left} rows .* takes {left + 1}"):
        check(REAL, mine, held_out, rows=left + 1)


@pytest.mark.parametrize("share", [0.0001, 0.2])
def test_a_validation_share_fits_the_set(tmp_path, share):
    answers = [answer for number in range(50) if 0.001 < place(answer := f"{number}!") < 0.2]
    few = tmp_path / "few.jsonl"
    write_jsonl(few, ({"messages": chat([("a", answer)])} for answer in answers))
    out = len(answers) if share > 0.1 else 0
    with pytest.raises(BadInput, match=rf"few\.jsonl, {out} "):
        check(REAL, few, {"evaluation": {"held_out": {"share": share, "rows": 4}}})


def test_openai_requires_ten_rows(mine):
    check(API, mine, rows=10)
    with pytest.raises(BadInput, match=r"takes 9.* 10"):
        check(API, mine, rows=9)


def test_control_tokens_of_the_users_model_are_refused(mine, tmp_path):
    write_jsonl(mine, [{"messages": chat([("a", "<s>b</s>")])}] * 24)
    check(REAL, mine)
    tokens = [{"id": 1, "content": "</s>", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    with pytest.raises(BadInput, match=r"line 1: .*</s>"):
        check(REAL, mine, {"model": {"name": str(tmp_path)}})


# --- through Snakemake ------------------------------------------------------------------------------------------------


def test_a_set_is_planned_and_a_bad_row_is_one_sentence(tmp_path, mine):
    project = copy_of_the_project(tmp_path / "project")
    study = {"study": "mine", "experiments": {"mine": {"conditions": {"mine": {"dataset": str(mine)}}}}}
    jobs = planned(done := snakemake(project, "-n", *changed(project, study)))
    assert {"audit", "finetune:mine", "ask:mine"} <= jobs and str(mine) in done.stdout + done.stderr
    mine.write_text(mine.read_text() + '{"prompt": "a", "completion": "b"}\n')
    done = snakemake(project, "-n", *changed(project, study))
    shown = done.stdout + done.stderr
    assert done.returncode != 0 and f"{mine}, line 25: " in shown
    assert "Traceback" not in shown and ".py" not in shown
