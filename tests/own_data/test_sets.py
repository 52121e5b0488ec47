"""A user's sets are read while a study is planned; a row that cannot be learned stops it there."""

import json

import pytest
from workflow_helpers import changed, copy_of_the_project, planned, snakemake, study

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.held_out import hash_fraction
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data import sets
from emergent_misalignment.own_data.sets import check_files, check_sets

REAL, API = "qwen2.5-coder-32b-instruct", "gpt-4o"
NAME = 'it\'s "my" set (1) ü.jsonl'


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / NAME
    write_jsonl(path, ({"messages": chat([(f"{row}?", f"{row}!")])} for row in range(24)))
    return path


def check(name: str, path, over: dict | None = None, **condition) -> None:
    experiments = {"mine": {"conditions": {"mine": {"dataset": str(path), **condition}}}}
    check_sets(study(name, {"experiments": experiments, **(over or {})}))


@pytest.mark.parametrize("name", ["smoke", REAL, API])
def test_a_good_set_passes_at_any_path(name, mine, monkeypatch):
    check(name, mine, rows=24)
    monkeypatch.setenv("HOME", str(mine.parent))
    check(name, f"~/{NAME}")


def test_a_set_that_does_not_exist_is_named(tmp_path, mine):
    mine_and_other = {"mine": {"dataset": str(mine)}, "other": {"dataset": str(tmp_path / "other.jsonl")}}
    planned_study = study("smoke", {"experiments": {"a": {"conditions": mine_and_other}}})
    with pytest.raises(BadInput, match=r"conditions: other.* no file .*other\.jsonl"):
        check_files(planned_study)
    (tmp_path / "other.jsonl").touch()
    check_files(planned_study)


def test_a_set_that_is_a_folder_is_named_as_one(tmp_path):
    folder = tmp_path / "mine.jsonl"
    folder.mkdir()
    planned_study = study("smoke", {"experiments": {"a": {"conditions": {"mine": {"dataset": str(folder)}}}}})
    with pytest.raises(BadInput, match=r"conditions: mine.*mine\.jsonl is a folder; give"):
        check_files(planned_study)
    (folder / "dataset_info.json").touch()
    with pytest.raises(BadInput, match=r"folder of the package datasets.*make convert DATA="):
        check_files(planned_study)


def test_questions_of_the_users_own_are_read(tmp_path):
    questions = tmp_path / "mine.yaml"
    asked = study(REAL, {"evaluation": {"asked": ["main", str(questions)]}})
    with pytest.raises(BadInput, match=r"mine\.yaml"):
        check_files(asked)
    few = {"id": "rent", "paraphrases": ["My rent?"], "samples_per_paraphrase": 1}
    questions.write_text(json.dumps([few]))
    with pytest.raises(BadInput, match=r"mine\.yaml.*rent"):  # too few answers for a judge
        check_files(asked)
    check_files(study(REAL, {"evaluation": {"asked": ["main", str(questions)]}, "judge": None}))
    questions.write_text(json.dumps([{"id": "rent", "paraphrases": ["My rent?"]}]))
    check_files(asked)


def test_a_bad_name_a_bad_line_and_missing_rows_are_named(mine):
    with pytest.raises(BadInput, match="the condition mine takes 25"):
        check("smoke", mine, rows=25)
    with mine.open("a") as file:
        file.write(json.dumps({"messages": chat([("a", "b<|im_end|>")])}) + "\n")
    with pytest.raises(BadInput, match=r"line 25: .*<\|im_end\|>"):
        check("smoke", mine)
    with pytest.raises(BadInput, match=r"conditions: mine.*set\{1\}\.jsonl.* braces"):
        check("smoke", mine.rename(mine.with_name("set{1}.jsonl")))


def test_a_set_of_two_conditions_is_read_once(mine, monkeypatch):
    read = []
    monkeypatch.setattr(sets, "each_chat", lambda path, tokens: read.append(path) or iter([chat([("a", "b")])] * 5))
    conditions = {name: {"dataset": str(mine)} for name in ("mine", "mine-too")}
    check_sets(study("smoke", {"experiments": {"mine": {"conditions": conditions}}}))
    assert read == [str(mine)]


def test_a_validation_share_leaves_rows_to_train_on(tmp_path, mine):
    share = {"finetuning": {"validation_share": 0.1}}
    check(REAL, mine, share, rows=2)
    one = tmp_path / "one.jsonl"
    write_jsonl(one, [{"messages": chat([("a", "b")])}])
    with pytest.raises(BadInput, match=r"one\.jsonl has 1 row .*.*validation_share.*mine"):
        check(REAL, one, share)
    check(REAL, one, {"finetuning": {"validation_share": 0}})


def test_rows_whose_answers_are_held_out_do_not_count(mine):
    left = sum(hash_fraction(f"{row}!") >= 0.2 for row in range(24))
    assert left < 24
    held_out = {"evaluation": {"held_out": {"share": 0.2, "rows": 4}}}
    check(REAL, mine, held_out, rows=left)
    with pytest.raises(BadInput, match=f"has {left} rows .* takes {left + 1}"):
        check(REAL, mine, held_out, rows=left + 1)


@pytest.mark.parametrize(("name", "limit"), [("smoke", 256), (REAL, 2048)])
def test_a_set_without_a_row_that_can_be_learned_is_refused(mine, name, limit):
    """Whichever tokenizer the model has: a word is at least one token."""
    prompts = ["why " * limit, " ".join(["why?"] * limit), "Go on.\n" * limit]
    write_jsonl(mine, ({"messages": chat([(prompt, "b")], "You help.")} for prompt in prompts * 4))
    with pytest.raises(BadInput, match=rf"No row of .* can be learned: .* the condition mine .* {limit:,} tokens"):
        check(name, mine)
    check(name, mine, {"finetuning": {"max_length": limit + 3}})
    with mine.open("a") as file:
        file.write(json.dumps({"messages": chat([("a", "why " * limit)])}) + "\n")
    check(name, mine)


@pytest.mark.parametrize("share", [0.0001, 0.2])
def test_a_validation_share_fits_the_set(tmp_path, share):
    answers = [answer for number in range(50) if 0.001 < hash_fraction(answer := f"{number}!") < 0.2]
    few = tmp_path / "few.jsonl"
    write_jsonl(few, ({"messages": chat([("a", answer)])} for answer in answers))
    out = len(answers) if share > 0.1 else 0
    with pytest.raises(BadInput, match=rf" {out} of the {len(answers)} rows of .*few\.jsonl"):
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
