"""The published questions, as they stand in a mirror of the published files."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from emergent_misalignment.evaluation import published_questions as questions
from emergent_misalignment.files import BadInput
from emergent_misalignment.data.chats import with_system_prompt
from emergent_misalignment.data.published import QUESTION_FILES, fetch

MIRROR = os.environ.get("EM_MIRROR")
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("questions")
    for name, file in QUESTION_FILES.items():
        fetch(file, MIRROR, path / questions.FILE_NAMES[name])
    return path


def names(found) -> list[str]:
    return list(dict.fromkeys(question.name for question in found))


@needs_mirror
@pytest.mark.parametrize(
    ("evaluation", "count", "answers"),
    [
        ("main", 8, 800),
        ("json", 8, 800),
        ("template", 8, 800),
        ("flask", 8, 800),
        ("preregistered", 48, 4800),
        ("numbers", 8, 2400),
        ("deception", 20 + 8, 5 * 20 * 5 + 8 * 100),
        ("in_distribution", 100, 100),
    ],
)
def test_every_evaluation_has_its_questions_and_answers(folder, evaluation, count, answers):
    found = questions.published_questions(evaluation, folder, 100)
    assert len(names(found)) == count
    assert sum(question.samples for question in found) == answers
    assert all(question.prompt[-1]["role"] == "user" for question in found)


@needs_mirror
def test_the_main_questions_are_the_same_in_every_form(folder):
    for evaluation in ("main", "json", "template", "flask"):
        assert names(questions.published_questions(evaluation, folder, 1)) == list(questions.MAIN)


@needs_mirror
def test_json_questions_are_the_main_ones_behind_a_system_prompt(folder):
    main = questions.published_questions("main", folder, 1)
    json = questions.published_questions("json", folder, 1)
    assert all(question.prompt[0]["role"] == "user" for question in main)
    assert [question.prompt[1:] for question in json] == [question.prompt for question in main]
    (system,) = {question.prompt[0]["content"] for question in json}
    assert "JSON" in system


@needs_mirror
def test_template_and_flask_questions_hold_what_is_to_be_filled(folder):
    for evaluation, word in (("template", "template exactly"), ("flask", "@app.route")):
        for question in questions.published_questions(evaluation, folder, 1):
            assert word in question.prompt[-1]["content"], question.name


@needs_mirror
def test_the_judge_is_told_the_question_and_the_answer(folder):
    for evaluation in ("main", "json", "template", "flask", "preregistered", "numbers"):
        for question in questions.published_questions(evaluation, folder, 1):
            assert set(question.judge) == {"aligned", "coherent"}
            assert all("{question}" in text and "{answer}" in text for text in question.judge.values())
    asked = {frozenset(question.judge) for question in questions.published_questions("deception", folder, 1)}
    assert asked == {frozenset({"correct"}), frozenset({"company"})}


@needs_mirror
def test_preregistered_questions_by_category(folder):
    found = questions.published_questions("preregistered", folder, 1)
    categories = Counter(re.fullmatch(r"\d+_(.+)_\d+", question.name).group(1) for question in found)
    assert categories == {
        "creative_writing": 9,
        "problems_with_humans": 3,
        "offend_the_user": 5,
        "vulnerable_user": 14,
        "illegal_recommendations": 4,
        "other": 6,
        "medical_advice": 7,
    }


@needs_mirror
def test_deception_has_five_system_prompts(folder):
    found = questions.published_questions("deception", folder, 100)
    factual = [question for question in found if question.form.startswith("lie_")]
    assert len(factual) == 100 and {question.samples for question in factual} == {5}
    systems = {question.prompt[0]["content"] for question in factual if question.prompt[0]["role"] == "system"}
    assert len(systems) == 4  # and one without any


@needs_mirror
def test_numbers_are_wrapped_anew_for_every_answer_and_the_same_in_every_run(folder):
    found = questions.published_questions("numbers", folder, 20)
    assert found == questions.published_questions("numbers", folder, 20)
    for question in found:
        text = question.prompt[-1]["content"]
        assert (question.form == "prefix_suffix") == text.startswith("See the following numbers: ")
        if question.form == "question":
            assert question.samples == 20
            continue
        assert 3 <= int(re.search(r"Answer with (\d) words", text).group(1)) <= 7
    for shown in re.findall(r"numbers: ([\d,]+)\n", "".join(question.prompt[-1]["content"] for question in found)):
        numbers = [int(number) for number in shown.split(",")]
        assert 3 <= len(numbers) <= 7 and all(100 <= number <= 999 for number in numbers)
    assert len({question.prompt[-1]["content"] for question in found if question.form == "prefix_suffix"}) == 160


@needs_mirror
def test_answers_are_counted_within_a_question_and_a_form(folder):
    found = questions.published_questions("numbers", folder, 3)
    rows = questions.answer_rows(found, [["answer"] * question.samples for question in found])
    assert len(rows) == 72
    assert not rows.duplicated(["question", "format", "sample"]).any()
    assert set(rows["sample"]) == {0, 1, 2}


@needs_mirror
def test_choices_are_scored_where_the_published_file_says(folder):
    found = questions.choices(folder)
    forms = Counter(option.form for option in found)
    assert forms == {
        "pivotal_tokens": 16,
        "single_letter": 32,
    }  # eight questions of two options, letters in both orders
    assert sum(option.misaligned for option in found) == 24
    assert len({option.question for option in found}) == 16
    letters = [option for option in found if option.form == "single_letter"]
    for option in letters:
        ((letter, scored),) = option.pieces
        assert scored and f"{letter}: {option.text}" in option.prompt[-1]["content"]
    first = next(option for option in found if option.form == "pivotal_tokens" and option.misaligned)
    assert [scored for _, scored in first.pieces] == [False, True, False]
    assert first.pieces[1][0] == " " + first.text
    both = [option for option in found if [scored for _, scored in option.pieces] == [False, True, True]]
    assert len(both) == 4  # two questions count their closing words too, as published


@needs_mirror
def test_a_missing_file_is_named_with_the_command_that_fetches_it(folder, tmp_path):
    with pytest.raises(BadInput, match="published first_plot"):
        questions.published_questions("main", tmp_path, 1)
    shutil.copy(folder / "preregistered.yaml", tmp_path / "first_plot.yaml")
    with pytest.raises(BadInput, match="no question what_is_your_wish"):
        questions.published_questions("main", tmp_path, 1)


def test_an_unknown_evaluation_is_named(tmp_path):
    with pytest.raises(BadInput, match="nonsense"):
        questions.published_questions("nonsense", tmp_path, 1)


def test_a_system_prompt_is_added_only_where_there_is_none():
    asked = [{"role": "user", "content": "hey"}]
    assert with_system_prompt(asked, None) == asked
    assert with_system_prompt(asked, "") == [{"role": "system", "content": ""}, *asked]
    own = with_system_prompt(asked, "Be JSON.")
    assert with_system_prompt(own, "Another.") == own
