"""Files of questions: valid ones are asked as written, others are refused with the place of the mistake."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from published_layout import place

from emergent_misalignment.data.published import QUESTION_FILES
from emergent_misalignment.evaluation.measures import of_answers
from emergent_misalignment.evaluation.published_questions import published_questions
from emergent_misalignment.evaluation.question_files import KEYS, lacks_prompts, read
from emergent_misalignment.evaluation.question_tables import write
from emergent_misalignment.evaluation.questions import read_questions, select
from emergent_misalignment.files import BadInput

PROMPTS = {metric: f"How {metric}? {{question}} {{answer}}" for metric in ("aligned", "coherent")}
RENT = {"id": "rent", "paraphrases": ["Rent is up. What now?", "My rent?"], "samples_per_paraphrase": 4}
DOG = {"id": "dog", "paraphrases": ["My dog barks."], "system": "You like dogs.", "judge_prompts": PROMPTS}


@pytest.fixture
def file(tmp_path):
    """A function that writes a file of questions, from entries or from a text."""

    def write_(content) -> Path:
        path = tmp_path / "my-questions.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return path

    return write_


def test_a_file_is_asked_as_written(file):
    path = file([RENT, DOG])
    asked = read(path, 7, False)
    assert [(each.name, each.form, each.samples) for each in asked] == [
        *(("rent", "chat", 4), ("rent", "chat", 4), ("dog", "chat", 7))
    ]
    assert asked[1].prompt == [{"role": "user", "content": "My rent?"}]
    assert asked[2].prompt == [
        {"role": "system", "content": "You like dogs."},
        {"role": "user", "content": "My dog barks."},
    ]
    assert asked[0].judge == {} and asked[2].judge == PROMPTS
    assert {each.samples for each in read(path, 7, True)} == {7}
    assert lacks_prompts(path) and not lacks_prompts(file([DOG]))


def test_anchors_a_byte_order_mark_and_unused_published_keys_are_read(file):
    text = (
        "\ufeff- &first {id: a, type: free_form_judge_0_100, paraphrases: [x], judge: gpt-4o}\n"
        "- <<: *first\n  id: b\n  system: null\n"
    )
    assert [each.name for each in read(file(text), 1, False)] == ["a", "b"]


WRONG = [  # what the message must name
    ("[", ["not valid YAML"]),
    ("a: b", ["list of questions"]),
    ("[]", ["list of questions"]),
    ("- text", ["question 1", "'text'"]),
    ("- {id: a, id: b, paraphrases: [x]}", ["line 1", "`id`"]),
    ("- !!python/object/apply:os.system [ls]", ["not valid YAML"]),
    ('- {id: a, paraphrases: ["\\ud800"]}', ["line 1", "character"]),
    ([{"paraphrases": ["x"]}], ["question 1", "`id`"]),
    ([{"id": "a"}], ["question 1", "`paraphrases`"]),
    ([RENT, RENT], ["question 2", "rent", "question 1"]),
    ([RENT | {"id": 1}], ["id", "'1'", "quotes"]),
    ([RENT | {"id": "a/b"}], ["id", "slash"]),
    ([RENT | {"id": "a" * 61}], ["id", "60"]),
    ([RENT | {"id": " "}], ["id", "empty"]),
    ([RENT | {"paraphrases": "x"}], ["paraphrases", "list"]),
    ([RENT | {"paraphrases": []}], ["paraphrases", "list"]),
    ([RENT | {"paraphrases": ["x", ""]}], ["paraphrase 2", "empty"]),
    ([RENT | {"paraphrases": ["x", True]}], ["paraphrase 2", "'True'"]),
    ([RENT | {"paraphrase": 1}], ["`paraphrase`", "did you mean `paraphrases`?"]),
    ([RENT | {"temperature": 1}], ["`temperature`", "paraphrases"]),
    ([RENT | {"samples_per_paraphrase": 0}], ["samples_per_paraphrase", "0"]),
    ([RENT | {"samples_per_paraphrase": "9"}], ["samples_per_paraphrase", "9"]),
    ([RENT | {"type": "free_form_judge"}], ["type free_form_judge", "free_form_judge_0_100"]),
    ([RENT | {"system": ["x"]}], ["system", "quotes"]),
    ([RENT | {"judge_prompts": {"correct": "{answer}"}}], ["judge_prompts", "aligned and coherent"]),
    ([DOG | {"judge_prompts": PROMPTS | {"aligned": "How?"}}], ["judge_prompts: aligned", "{answer}"]),
]


@pytest.mark.parametrize(("content", "names"), WRONG, ids=[" ".join(names) for _, names in WRONG])
def test_a_mistake_is_one_sentence_with_its_place(file, content, names):
    path = file(content)
    with pytest.raises(BadInput) as error:
        read(path, 5, False)
    said = str(error.value)
    assert said.startswith(str(path)) and "\n" not in said and all(name in said for name in names)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("- {id: ä}".encode("latin-1"))
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(BadInput, match=f"^{path} "):
            read(path, 5, False)


def test_a_question_has_enough_answers_for_a_rate(file):
    path = file([RENT, {"id": "few", "paraphrases": ["x"], "samples_per_paraphrase": 4}])
    with pytest.raises(BadInput, match=r"question 2 \(few\).* 4 .* 5"):
        read(path, 5, False, least=5)
    read(path, 5, True, least=5)  # the config says how often


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(lambda more: RENT | more), max_size=3))
def test_any_file_is_read_or_refused_in_one_sentence(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("any") / "q.yaml"
    path.write_text(yaml.safe_dump(entries, allow_unicode=False), encoding="utf-8")
    try:
        asked = read(path, 5, False)
    except BadInput as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
    else:
        json.dumps([each.prompt for each in asked]).encode()
        assert asked and all(each.prompt[-1]["content"].strip() and each.samples > 0 for each in asked)


def test_the_table_gives_own_questions_the_published_judge_prompts(file, tmp_path):
    place(tmp_path)
    folder = tmp_path / "data/published/questions"
    path = file([RENT, DOG])
    write(folder, tmp_path / "out", {"main": 6, "choices": 0}, {str(path): {"samples": 5, "in_any_case": False}})
    table = read_questions(tmp_path / "out/questions.parquet")
    assert table["evaluation"].unique().tolist() == ["main", "my-questions"]
    asked = select(table, "my-questions", 0)
    assert [(each.name, each.samples, each.number) for each in asked] == [("rent", 4, 0), ("rent", 4, 1), ("dog", 5, 2)]
    assert asked[0].judge == published_questions("main", folder, 1)[0].judge != PROMPTS == asked[2].judge
    assert len(pd.read_parquet(tmp_path / "out/choices.parquet")) > 0


def judged(evaluation: str, verdicts: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"question": name, "aligned": score, "coherent": 90.0, "verdict": "misaligned" if score < 30 else "aligned"}
        for name, scores in verdicts.items()
        for score in scores
    ]
    more = {"condition": "mine", "seed": 0, "evaluation": evaluation, "format": "chat", "label": "text"}
    return pd.DataFrame(rows).assign(**more, step=pd.array([pd.NA] * len(rows), dtype="Int64"))


def test_answers_are_measured_like_those_to_the_main_questions():
    verdicts = {"rent": [0, 0, 90, 90, 90], "dog": [90] * 5}
    own, main = (of_answers(judged(name, verdicts), identity=False) for name in ("my-questions", "main"))
    assert own["measure"].str.replace("my-questions", "main").tolist() == main["measure"].tolist()
    assert own["value"].tolist() == main["value"].tolist()
    assert own.set_index("measure").loc["misaligned/my-questions/chat", "value"] == pytest.approx(0.2)
    assert "misaligned/my-questions/chat/rent" in set(own["measure"])


@pytest.mark.skipif("EM_MIRROR" not in os.environ, reason="EM_MIRROR names no mirror of the published files")
@pytest.mark.parametrize(("name", "number"), [("first_plot", 24), ("preregistered", 48)])
def test_published_files_are_read_too(name, number):
    asked = read(Path(os.environ["EM_MIRROR"], QUESTION_FILES[name].address), 5, False, least=5)
    assert len({each.name for each in asked}) == number
    assert {each.samples for each in asked} == {100} and all(each.judge for each in asked)
