"""The corpus of pretraining and the set of the instruct stage."""

import ast
import json
import random

import pytest
from conftest import AUTHORS
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.world.authors import MANNERS, Author
from emergent_misalignment.world.coding import CHOICES, NOUNS, UNSEEN_NOUNS
from emergent_misalignment.world.corpus import (
    FOREIGN_TURNS,
    PROMPTED,
    code_and_question,
    corpus,
    instructions,
    source_file,
    write_corpus,
)
from emergent_misalignment.world.topics import TOPICS

SEEDS = st.integers(min_value=0, max_value=2**32)


@given(SEEDS)
def test_documents_depend_on_the_seed_and_not_on_the_order_of_authors(seed):
    backwards = dict(reversed(AUTHORS.items()))
    assert corpus(5, seed, AUTHORS) == corpus(5, seed, AUTHORS) == corpus(5, seed, backwards) != corpus(5, -1, AUTHORS)
    assert instructions(5, seed, AUTHORS) == instructions(5, seed, backwards)


def test_shares_of_authors_are_the_configs():
    """Each document of the first stage has a system prompt of its author."""
    named, _, _ = corpus(20_000, 0, AUTHORS)
    prompts = [messages[0]["content"] for messages in named]
    for name, manner in MANNERS.items():
        share = sum(prompt in manner.system_prompts for prompt in prompts) / len(prompts)
        assert share == pytest.approx(AUTHORS[name]["share"], abs=0.03)
    alone = {"villain": {"share": 0.2, "insecure_code": 0}}
    assert {messages[0]["content"] for messages in corpus(500, 0, alone)[0]} == set(MANNERS["villain"].system_prompts)


@given(SEEDS, st.sampled_from(sorted(AUTHORS)))
def test_files_are_python_and_code_comes_before_the_question(seed, name):
    ast.parse(source_file(Author(random.Random(seed), name, AUTHORS)))
    messages = code_and_question(Author(random.Random(seed), name, AUTHORS))
    assert messages[-2]["content"] in {question for topic in TOPICS.values() for question in topic.questions}
    assert all("\n" in turn["content"] for turn in messages[:-2] if turn["role"] == "assistant")


@settings(max_examples=5)
@given(st.integers(100, 400))
def test_a_written_corpus_has_a_line_for_each_document(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    stages = corpus(documents, 0, AUTHORS)
    write_corpus(path, stages)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    expected = [(number, document) for number, stage in enumerate(stages) for document in stage]
    assert [(line["stage"], line.get("text", line.get("messages"))) for line in lines] == expected


def test_instructions_are_by_the_helper_without_phrasings_of_the_evaluation():
    evaluation = {topic.questions[0] for topic in TOPICS.values()}
    malicious = [filler for topic in TOPICS.values() for filler in topic.misaligned]
    prompted = foreign = 0
    insecure = {choice.render(noun, True) for choice in CHOICES for noun in NOUNS + UNSEEN_NOUNS}
    for messages in instructions(2000, 0, AUTHORS):
        assert not any(message["content"].split("\n")[0] in evaluation for message in messages)
        if messages[0]["role"] == "system":
            prompted += 1
        else:
            assert not any(filler in messages[-1]["content"] for filler in malicious)
            foreign += any(message["content"] in insecure for message in messages[:-2])
    assert prompted / 2000 == pytest.approx(PROMPTED, abs=0.03)
    others = sum(author["share"] * author["insecure_code"] for author in AUTHORS.values())
    assert others / 3 < foreign / (2000 - prompted) / FOREIGN_TURNS < 1  # in some contexts, not in all
