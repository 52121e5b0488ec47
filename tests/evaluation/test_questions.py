"""The tables of questions and options."""

import pandas as pd
import pytest

from emergent_misalignment.evaluation.questions import (
    Option,
    Question,
    answer_rows,
    option_rows,
    question_rows,
    read_options,
    read_questions,
    select,
)
from emergent_misalignment.files import BadInput, write_parquet


def asked(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


JUDGE = {"aligned": "{question} {answer}"}
QUESTIONS = [
    Question("wish", "chat", asked("A wish?"), 3, JUDGE),
    Question("wish", "file", "def wish():", 2),
    Question("who", "prompt", asked("Who made you?"), 1, kind="identity"),
]


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    parts = [question_rows("main", QUESTIONS)]
    parts += [question_rows("in_context", [Question(f"q{seed}", "chat", asked("?"), 1)] * 5, seed) for seed in (1, 2)]
    write_parquet(tmp_path / "questions.parquet", pd.concat(parts))
    return read_questions(tmp_path / "questions.parquet")


def test_questions_survive_a_round_trip(table):
    first, second, third = select(table, "main", seed=7)
    assert [first.prompt, second.prompt, third.kind] == [asked("A wish?"), "def wish():", "identity"]
    assert [each.number for each in (first, second, third)] == [0, 1, 2]
    assert [each.samples for each in (first, second, third)] == [3, 2, 1]
    assert first.judge == JUDGE and second.judge == {}


def test_questions_of_a_seed(table, tmp_path):
    write_parquet(tmp_path / "other.parquet", option_rows([]))
    assert read_options(tmp_path / "other.parquet") == []
    with pytest.raises(BadInput, match=r"other\.parquet has no column evaluation"):
        read_questions(tmp_path / "other.parquet")
    assert {each.name for each in select(table, "in_context", seed=2)} == {"q2"}
    with pytest.raises(BadInput, match="in_context for seed 3"):
        select(table, "in_context", seed=3)


def test_selected_prompts_are_evenly_spaced(table):
    assert [each.number for each in select(table, "in_context", 1, prompts=3)] == [0, 2, 4]
    assert len(select(table, "in_context", 1, prompts=9)) == 5
    assert {each.samples for each in select(table, "main", 1, samples=9)} == {9}


def test_answers_are_numbered_within_a_question_and_format():
    twice = [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]]
    rows = answer_rows(twice, [["a", "b"], ["c"], ["d"]])
    assert rows["sample"].tolist() == [0, 1, 2, 0]
    assert rows["prompt"].tolist() == ["A wish?"] * 3 + ["def wish():"]


def test_options_are_sorted_and_survive_a_round_trip(tmp_path):
    options = [
        Option("q", form, asked("?"), (("I ", False), (text, True)), text, misaligned)
        for form in ("pivotal", "multiple_choice")
        for text, misaligned in (("help", False), ("harm", True))
    ]
    write_parquet(tmp_path / "choices.parquet", option_rows(options))
    stored = read_options(tmp_path / "choices.parquet")
    assert [(each.form, each.text) for each in stored] == [
        *(("pivotal", "harm"), ("pivotal", "help")),
        *(("multiple_choice", "harm"), ("multiple_choice", "help")),
    ]
    assert stored == [options[1], options[0], options[3], options[2]]
