"""Sets of the user's own, read when a study is planned: what cannot be learned as it stands stops it there."""

import json

import pytest
from workflow_helpers import changed, config, copy_of_the_project, planned, snakemake

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.held_out import hash_fraction
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data.sets import check_sets
from emergent_misalignment.study.plan import Plan

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


@pytest.mark.parametrize("study", ["smoke", REAL, API])
def test_a_good_set_passes(study, mine):
    check(study, mine)
    check(study, mine, rows=24)


def test_braces_are_no_wildcards(mine):
    path = mine.rename(mine.with_name("set{1}.jsonl"))
    with pytest.raises(BadInput, match=r"set\{1\}\.jsonl has braces in its name.*rename the file"):
        check("smoke", path)


def test_every_line_is_read(mine):
    with mine.open("a") as file:
        file.write(json.dumps({"messages": chat([("a", "b<|im_end|>")])}) + "\n")
    with pytest.raises(BadInput, match=r'line 25: message 2 holds "<\|im_end\|>"'):
        check("smoke", mine)


def test_a_set_of_two_conditions_is_read_once(mine, monkeypatch):
    from emergent_misalignment.own_data import sets

    read = []
    monkeypatch.setattr(sets, "each_chat", lambda path, tokens: read.append(path) or iter([chat([("a", "b")])] * 5))
    conditions = {name: {"dataset": str(mine)} for name in ("mine", "mine-too")}
    check_sets(Plan(config("smoke", {"experiments": {"mine": {"conditions": conditions}}})))
    assert read == [str(mine)]


def test_a_condition_that_takes_more_rows_than_there_are_is_named(mine):
    with pytest.raises(BadInput, match="has 24 rows to train on, and the condition mine takes 25; lower its rows"):
        check("smoke", mine, rows=25)


def test_a_held_out_share_leaves_rows_to_train_on(tmp_path, mine):
    share = {"finetuning": {"held_out_share": 0.1}}
    check(REAL, mine, share, rows=2)
    one = tmp_path / "one.jsonl"
    write_jsonl(one, [{"messages": chat([("a", "b")])}])
    with pytest.raises(BadInput, match=r"one\.jsonl has 1 row to train on, and finetuning: held_out_share of 0.1"):
        check(REAL, one, share)
    check(REAL, one, {"finetuning": {"held_out_share": 0}})


def test_rows_whose_answers_are_held_out_do_not_count(mine):
    left = sum(hash_fraction(f"{row}!") >= 0.2 for row in range(24))
    assert left < 24
    held_out = {"evaluation": {"held_out": {"share": 0.2, "rows": 4}}}
    check(REAL, mine, held_out, rows=left)
    with pytest.raises(BadInput, match=f"has {left} rows to train on, and the condition mine takes {left + 1}"):
        check(REAL, mine, held_out, rows=left + 1)


@pytest.mark.parametrize("share", [0.0001, 0.2])
def test_a_set_too_small_for_the_share_that_is_held_out_is_named_before_it_is_trained_on(tmp_path, share):
    answers = [answer for number in range(50) if 0.001 < hash_fraction(answer := f"{number}!") < 0.2]
    few = tmp_path / "few.jsonl"
    write_jsonl(few, ({"messages": chat([("a", answer)])} for answer in answers))
    out, cure = (len(answers), "lower") if share > 0.1 else (0, "raise")
    with pytest.raises(BadInput, match=rf"few\.jsonl, {out} would be .*; {cure} evaluation"):
        check(REAL, few, {"evaluation": {"held_out": {"share": share, "rows": 4}}})


def test_openai_asks_for_ten_rows(mine):
    check(API, mine, rows=10)
    with pytest.raises(BadInput, match="the condition mine takes 9, and OpenAI asks for 10 at least"):
        check(API, mine, rows=9)


def test_control_tokens_of_a_model_that_is_here_count(mine, tmp_path):
    write_jsonl(mine, [{"messages": chat([("a", "<s>b</s>")])}] * 24)
    check(REAL, mine)
    tokens = [{"id": 1, "content": "</s>", "special": True}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    with pytest.raises(BadInput, match='line 1: message 2 holds "</s>"'):
        check(REAL, mine, {"model": {"name": str(tmp_path)}})


def test_a_path_may_begin_at_home(mine, monkeypatch):
    monkeypatch.setenv("HOME", str(mine.parent))
    plan = Plan(config("smoke", {"experiments": {"mine": {"conditions": {"mine": {"dataset": f"~/{NAME}"}}}}}))
    assert plan.dataset_of("mine", 1) == plan.datasets["mine"] == str(mine)
    check_sets(plan)


# --- through Snakemake ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_of_the_project(tmp_path_factory.mktemp("project"))


def over(path) -> dict:
    return {"study": "mine", "experiments": {"mine": {"conditions": {"mine": {"dataset": str(path)}}}}}


def test_a_set_of_any_name_is_planned(project, mine):
    jobs = planned(done := snakemake(project, "-n", *changed(project, over(mine))))
    assert {"audit", "finetune:mine", "ask:mine"} <= jobs
    assert str(mine) in done.stdout + done.stderr


def test_a_bad_row_is_one_sentence_before_anything_runs(project, mine):
    mine.write_text(mine.read_text() + '{"prompt": "a", "completion": "b"}\n')
    done = snakemake(project, "-n", *changed(project, over(mine)))
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert f'{mine}, line 25: it has no "messages", but "prompt" and "completion"; a line must be' in shown
    assert "Traceback" not in shown and ".py" not in shown
