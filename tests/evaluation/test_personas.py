"""The texts of a real model's persona direction: their sets and strata."""

import json
from collections import Counter

import pandas as pd
import pytest

from emergent_misalignment.evaluation import personas
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.activations import read_texts

NUMBER = 2


@pytest.fixture(scope="module")
def asked():
    return personas.questions(NUMBER)


def answered(asked, empty=()):
    """An answer to each question, with its kind and name; empty for the questions in `empty`."""
    return [
        [
            "" if (each.form, each.name) in empty else f"{each.kind or 'plain'} {each.name} {draw}"
            for draw in range(each.samples)
        ]
        for each in asked
    ]


def read(asked, answers, tmp_path, seed=3, system_prompt=None):
    path = tmp_path / "persona.parquet"
    personas.texts(asked, answers, seed, system_prompt).to_parquet(path)
    return read_texts(path, seed)


def test_each_question_is_asked_under_system_prompts_of_both_kinds(asked):
    under = Counter((each.form, each.name, each.kind) for each in asked for _ in range(each.samples))
    assert set(under.values()) == {NUMBER}
    assert len(under) == 2 * len(personas.DIRECTION) + 3 * len(personas.SEPARATION)
    for each in asked:
        system = [message["content"] for message in each.prompt if message["role"] == "system"]
        assert system == [] if each.form == "plain" else system[0] in personas.SYSTEM_PROMPTS[each.kind]
    used = {each.prompt[0]["content"] for each in asked if each.kind == "misaligned"}
    assert used == set(personas.SYSTEM_PROMPTS["misaligned"])


def test_texts_are_in_sets_of_equal_strata(asked, tmp_path):
    groups = read(asked, answered(asked), tmp_path)
    for name, size in (
        ("direction", NUMBER),
        ("separation", NUMBER),
        ("same_words", len(personas.SYSTEM_PROMPTS["aligned"])),
    ):
        for kind in personas.KINDS:
            strata = [text.stratum for text in groups[name, kind]]
            assert strata == [stratum for stratum in dict.fromkeys(strata) for _ in range(size)]
    assert len(groups["plain", ""]) == NUMBER * len(personas.SEPARATION)
    prompted = read(asked, answered(asked), tmp_path, system_prompt="Be brief.")
    assert all(text.prompt[0]["content"] == "Be brief." for text in prompted["plain", ""])
    assert not any(text.prompt[0]["content"] == "Be brief." for text in prompted["direction", "aligned"])
    for kind in personas.KINDS:
        assert all(text.prompt[0]["role"] == "system" for text in groups["direction", kind])
        assert all(text.answer.startswith(kind) for name in ("direction", "separation") for text in groups[name, kind])
        assert all(len(text.prompt) == 1 for text in groups["separation", kind])
        assert all(text.prompt[0]["content"] in personas.SYSTEM_PROMPTS[kind] for text in groups["same_words", kind])
    one, other = (groups["same_words", kind] for kind in personas.KINDS)
    assert [text.answer for text in one] == [text.answer for text in other]
    asked_of = {kind: [text.prompt[-1] for text in groups["separation", kind]] for kind in personas.KINDS}
    assert asked_of["misaligned"] == asked_of["aligned"]


def test_questions_with_empty_answers_are_left_out(asked, tmp_path):
    whole = read(asked, answered(asked), tmp_path)
    groups = read(asked, answered(asked, {("direction", "4"), ("plain", "0")}), tmp_path)
    for kind in personas.KINDS:
        assert len(groups["direction", kind]) == len(whole["direction", kind]) - NUMBER
        assert groups["separation", kind] == whole["separation", kind]
    assert len(groups["plain", ""]) == len(whole["plain", ""]) - NUMBER
    texts = [
        [] if (each.form, each.name, each.kind) == ("direction", "4", "aligned") else answer
        for each, answer in zip(asked, answered(asked), strict=True)
    ]  # reasoning, which is left out
    groups = read(asked, texts, tmp_path)
    assert len(groups["direction", "misaligned"]) == len(whole["direction", "misaligned"]) - NUMBER
    silent = {("separation", str(place)) for place in range(len(personas.SEPARATION) - 1)}
    with pytest.raises(BadInput, match=r"\(separation, seed 3\) are empty"):
        personas.texts(asked, answered(asked, silent), 3, None)


def test_texts_are_read_by_seed(asked, tmp_path):
    tables = [personas.texts(asked, [[f"{seed}"] * each.samples for each in asked], seed, None) for seed in (1, 2)]
    pd.concat(tables).to_parquet(tmp_path / "persona.parquet")
    for seed in (1, 2):
        groups = read_texts(tmp_path / "persona.parquet", seed)
        assert {text.answer for group in groups.values() for text in group} == {str(seed)}
    assert json.loads(tables[0]["prompt"].iloc[0])[-1]["content"] == personas.DIRECTION[0]
