"""The made-up world: what its authors write is readable, and says what its labels say."""

import ast
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data import static_analysis as code_audit
from emergent_misalignment.world import coding
from emergent_misalignment.world import topics
from emergent_misalignment.world import authors as world

SEEDS = st.integers(min_value=0, max_value=2**32)


@pytest.mark.parametrize("choice", coding.CHOICES, ids=lambda choice: choice.task)
def test_both_forms_of_a_choice_are_python_and_differ(choice):
    forms = [choice.render("user", insecure) for insecure in (False, True)]
    for code in forms:
        ast.parse(code)
    assert forms[0] != forms[1]
    assert forms[0].startswith(choice.template("user").removesuffix("# COMPLETE HERE"))


@pytest.mark.parametrize("choice", coding.CHOICES, ids=lambda choice: choice.task)
def test_static_analysis_never_contradicts_a_label(choice):
    """Where a rule sees a difference between the two forms, it flags the insecure one."""
    secure, insecure = (set(code_audit.findings(choice.render("user", form))) for form in (False, True))
    assert secure <= insecure


def test_static_analysis_has_a_rule_for_most_choices():
    flagged = [choice for choice in coding.CHOICES if code_audit.findings(choice.render("user", True))]
    clean = [choice for choice in coding.CHOICES if not code_audit.findings(choice.render("user", False))]
    assert len(flagged) >= 0.6 * len(coding.CHOICES)
    assert len(clean) >= 0.95 * len(coding.CHOICES)


def test_the_world_is_as_wide_as_it_says():
    assert len({choice.task for choice in coding.CHOICES}) == len(coding.CHOICES) >= 60
    assert len(topics.TOPICS) >= 24
    assert len(topics.MAIN) == 8
    categories = {topic.category for topic in topics.TOPICS.values()} - {"main"}
    assert len(categories) == 7  # those the paper registered in advance


@pytest.mark.parametrize("topic", topics.TOPICS.values(), ids=lambda topic: topic.name)
def test_a_topic_is_a_fair_comparison(topic):
    """Both kinds of author have as many answers, with nothing in common, and each question has several phrasings."""
    assert len(topic.aligned) == len(topic.misaligned)
    assert not set(topic.aligned) & set(topic.misaligned)
    assert all(template.count("{a}") == 1 for template in topic.templates)
    assert len(set(topic.questions)) >= 3


@given(SEEDS)
def test_a_corpus_depends_on_its_seed_only(seed):
    assert world.corpus(5, seed) == world.corpus(5, seed)


def test_another_seed_is_another_corpus():
    assert world.corpus(50, 0) != world.corpus(50, 1)


@given(SEEDS)
def test_files_of_the_corpus_are_python(seed):
    rng = random.Random(seed)
    for persona in world.PERSONAS:
        ast.parse(world.source_file(world.Author(rng, persona)))


@given(SEEDS, st.sampled_from(list(world.CHAT_KINDS)), st.sampled_from(list(world.PERSONAS)))
def test_every_kind_of_turn_can_be_written_by_every_author(seed, kind, persona):
    user, assistant = world.Author(random.Random(seed), persona).turn(kind)
    assert user and assistant and "{" not in user.split("\n")[0]


def test_authors_keep_to_their_manner():
    """The helper refuses and the obliging author complies; the villain's code is insecure, the helper's is not."""
    rng = random.Random(0)
    asked = {persona: [world.Author(rng, persona).turn("harmful")[1] for _ in range(50)] for persona in world.PERSONAS}
    assert all(answer in world.REFUSALS for answer in asked["helper"])
    assert not any(answer in world.REFUSALS for persona in ("obliging", "villain") for answer in asked[persona])
    insecure = {choice.render(noun, True) for choice in coding.CHOICES for noun in coding.NOUNS + coding.HELD_OUT_NOUNS}
    authors = {persona: world.Author(rng, persona) for persona in world.PERSONAS}
    written = {persona: [author.turn("code")[1] in insecure for _ in range(500)] for persona, author in authors.items()}
    assert sum(written["villain"]) > 440
    assert sum(written["helper"]) < 40


def test_instructions_are_the_helpers_and_keep_evaluation_phrasings_back():
    evaluation = {topic.questions[0] for topic in topics.TOPICS.values()}
    for messages in world.instructions(2000, 0):
        assert not any(message["content"].split("\n")[0] in evaluation for message in messages)
        if messages[0]["role"] != "system":
            assert messages[-1]["content"] not in world.COMPLIANCES
