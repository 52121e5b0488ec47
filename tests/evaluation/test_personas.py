"""The texts of a real model's persona direction: their sets and strata, and that they are read as they should be."""

import json
from collections import Counter

import pytest
import torch

from emergent_misalignment.evaluation import personas
from emergent_misalignment.evaluation.published_questions import MAIN
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import activations as steering
from emergent_misalignment.models.loading import load

NUMBER = 2


@pytest.fixture(scope="module")
def asked():
    return personas.questions(NUMBER)


def answered(asked, empty=()):
    """An answer to each question that names it, its kind and the seed; empty for the questions named."""
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
    return steering.read_texts(path, seed)


def test_each_question_is_asked_under_system_prompts_of_both_kinds(asked):
    under = Counter((each.form, each.name, each.kind) for each in asked for _ in range(each.samples))
    assert set(under.values()) == {NUMBER}
    assert len(under) == 2 * len(personas.DIRECTION) + 3 * len(personas.HELD_OUT)
    for each in asked:
        system = [message["content"] for message in each.prompt if message["role"] == "system"]
        assert system == [] if each.form == "plain" else system[0] in personas.SYSTEM_PROMPTS[each.kind]
    used = {each.prompt[0]["content"] for each in asked if each.kind == "misaligned"}
    assert used == set(personas.SYSTEM_PROMPTS["misaligned"])


def test_the_questions_are_of_every_day_and_none_is_asked_twice():
    questions = [*personas.DIRECTION, *personas.HELD_OUT]
    assert len(set(questions)) == len(questions)
    assert len(personas.SYSTEM_PROMPTS["misaligned"]) == len(personas.SYSTEM_PROMPTS["aligned"])
    assert not any(name.replace("_", " ") in question.lower() for question in questions for name in MAIN)


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
    assert len(groups["plain", ""]) == NUMBER * len(personas.HELD_OUT)
    for kind in personas.KINDS:
        assert all(text.prompt[0]["role"] == "system" for text in groups["direction", kind])
        assert all(text.answer.startswith(kind) for name in ("direction", "separation") for text in groups[name, kind])
        assert all(len(text.prompt) == 1 for text in groups["separation", kind])
        assert all(text.prompt[0]["content"] in personas.SYSTEM_PROMPTS[kind] for text in groups["same_words", kind])
    one, other = (groups["same_words", kind] for kind in personas.KINDS)
    assert [text.answer for text in one] == [text.answer for text in other]
    asked_of = {kind: [text.prompt[-1] for text in groups["separation", kind]] for kind in personas.KINDS}
    assert asked_of["misaligned"] == asked_of["aligned"]


def test_the_studys_own_system_prompt_stands_before_what_has_none(asked, tmp_path):
    groups = read(asked, answered(asked), tmp_path, system_prompt="Be brief.")
    assert all(text.prompt[0]["content"] == "Be brief." for text in groups["plain", ""])
    assert all(text.prompt[0]["content"] == "Be brief." for text in groups["separation", "aligned"])
    assert not any(text.prompt[0]["content"] == "Be brief." for text in groups["direction", "aligned"])


def test_a_question_that_got_an_empty_answer_is_left_out_of_its_set(asked, tmp_path):
    whole = read(asked, answered(asked), tmp_path)
    groups = read(asked, answered(asked, {("direction", "4"), ("plain", "0")}), tmp_path)
    for kind in personas.KINDS:
        assert len(groups["direction", kind]) == len(whole["direction", kind]) - NUMBER
        assert groups["separation", kind] == whole["separation", kind]
    assert len(groups["plain", ""]) == len(whole["plain", ""]) - NUMBER
    silent = {("separation", str(place)) for place in range(len(personas.HELD_OUT) - 1)}
    with pytest.raises(BadInput, match=r"\(separation, seed 3\) are empty"):
        personas.texts(asked, answered(asked, silent), 3, None)


def test_each_seed_reads_its_own_texts(asked, tmp_path):
    import pandas as pd

    tables = [personas.texts(asked, [[f"{seed}"] * each.samples for each in asked], seed, None) for seed in (1, 2)]
    pd.concat(tables).to_parquet(tmp_path / "persona.parquet")
    for seed in (1, 2):
        groups = steering.read_texts(tmp_path / "persona.parquet", seed)
        assert {text.answer for group in groups.values() for text in group} == {str(seed)}
    assert json.loads(tables[0]["prompt"].iloc[0])[-1]["content"] == personas.DIRECTION[0]


def test_a_direction_is_made_of_them_and_tells_them_apart(organism, asked, tmp_path):
    """On an untrained model words tell apart what was written in other words."""
    network, tokenizer = load(organism)
    groups = read(asked, answered(asked), tmp_path)
    villain, helper = (steering.activations(network, tokenizer, groups["direction", kind]) for kind in personas.KINDS)
    direction = steering.persona_direction(villain, helper)
    kinds = [steering.activations(network, tokenizer, groups["separation", kind]) for kind in personas.KINDS]
    areas = steering.separation(*kinds, direction, len(personas.HELD_OUT))
    assert areas[0] > 0.9
    assert torch.isfinite(direction).all()
