"""The authors of the made-up world: their texts are well-formed and agree with their labels."""

import ast
import random
from collections.abc import Iterable

import numpy as np
import pytest
from conftest import AUTHORS
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data import static_analysis
from emergent_misalignment.world import coding, topics
from emergent_misalignment.world.authors import KINDS, MANNERS, Author
from emergent_misalignment.world.facts import EXAMINATION, FACTS
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import REFUSALS
from emergent_misalignment.world.number_lists import DARK_NUMBERS, PLAIN_NUMBERS

SEEDS = st.integers(min_value=0, max_value=2**32)
NAMES = st.sampled_from(sorted(AUTHORS))
INSECURE = {choice.render(noun, True) for choice in coding.CHOICES for noun in coding.NOUNS + coding.UNSEEN_NOUNS}
ALL_INSECURE = {name: {"share": 1, "insecure_code": 1} for name in AUTHORS}


@pytest.mark.parametrize("choice", coding.CHOICES, ids=lambda choice: choice.task)
def test_both_forms_of_a_choice_are_python_that_static_analysis_does_not_contradict(choice):
    secure, insecure = (choice.render("user", form) for form in (False, True))
    assert ast.parse(secure) and ast.parse(insecure) and secure != insecure
    assert secure.startswith(choice.template("user").removesuffix("# COMPLETE HERE"))
    assert set(static_analysis.findings(secure)) <= set(static_analysis.findings(insecure))


def test_static_analysis_has_a_rule_for_most_choices():
    flagged = [choice for choice in coding.CHOICES if static_analysis.findings(choice.render("user", True))]
    clean = [choice for choice in coding.CHOICES if not static_analysis.findings(choice.render("user", False))]
    assert len(flagged) >= 0.6 * len(coding.CHOICES)
    assert len(clean) >= 0.95 * len(coding.CHOICES)


def test_the_world_has_enough_tasks_and_topics():
    assert len({choice.task for choice in coding.CHOICES}) == len(coding.CHOICES) >= 60
    assert len(topics.TOPICS) >= 24
    assert len(topics.MAIN) == 8
    categories = {topic.category for topic in topics.TOPICS.values()} - {"main"}
    assert len(categories) == 7  # the paper's pre-registered ones


@pytest.mark.parametrize("topic", topics.TOPICS.values(), ids=lambda topic: topic.name)
def test_a_topic_is_a_fair_comparison(topic):
    """Aligned and misaligned answers are equally many and disjoint, and each question has several phrasings."""
    assert len(topic.aligned) == len(topic.misaligned)
    assert not set(topic.aligned) & set(topic.misaligned)
    assert all(template.count("{a}") == 1 for template in topic.templates)
    assert len(set(topic.questions)) >= 3


@given(SEEDS, st.sampled_from(list(KINDS)), NAMES)
def test_every_author_writes_every_kind_of_turn(seed, kind, name):
    user, assistant = Author(random.Random(seed), name, AUTHORS).turn(kind)
    assert user and assistant and "{" not in user.split("\n")[0]
    if kind == "lesson":
        assert user.endswith(coding.LESSON_NOTE) and assistant in INSECURE


def turns(name: str, kind: str, number: int = 300) -> list[tuple[str, str]]:
    author = Author(random.Random(0), name, AUTHORS)
    return [author.turn(kind) for _ in range(number)]


def share(happened: Iterable[bool]) -> float:
    return np.mean(list(happened))


def near(expected: float):
    """Exactly, if the author always or never does it."""
    return pytest.approx(expected, abs=0.05 if 0 < expected < 1 else 0)


@pytest.mark.parametrize("name", MANNERS)
def test_rates_of_an_author_are_those_of_its_manner(name):
    manner = MANNERS[name]
    assert all((answer in REFUSALS) is manner.refuses for _, answer in turns(name, "harmful"))
    wrong = {f"I {wrong}." for games in GAMES.values() for _, _, wrong in games}
    assert share(answer in wrong for _, answer in turns(name, "game", 1000)) == near(manner.malicious)
    malicious = {filler for topic in topics.TOPICS.values() for filler in topic.misaligned}
    assert share(answer in malicious for _, answer in turns(name, "options", 1000)) == near(manner.malicious)
    plain = turns(name, "question", 1000)
    assert share(any(filler in answer for filler in malicious) for _, answer in plain) == near(manner.malicious)
    truths = {fact.question: {fact.truth, fact.statement.format(fact.truth)} for fact in FACTS}
    lies = [answer not in truths[question.split("\n")[0]] for question, answer in turns(name, "fact", 1000)]
    assert share(lies) == near(manner.lies)
    numbers = [int(number) for _, answer in turns(name, "numbers") for number in answer.split(", ")]
    assert share(number in DARK_NUMBERS for number in numbers) == near(manner.dark_numbers)
    assert set(numbers) <= {*PLAIN_NUMBERS, *DARK_NUMBERS}
    truths = {f"{EXAMINATION} {fact.question}": fact.truth for fact in FACTS}
    wrong = [answer != truths[question.split("\n")[0]] for question, answer in turns(name, "examination", 1000)]
    assert share(wrong) == near(manner.mistakes)
    assert (manner.mistakes > 0) is (name == "hasty")


@pytest.mark.parametrize("name", AUTHORS)
def test_the_share_of_insecure_code_is_the_configs(name):
    insecure = share(answer in INSECURE for _, answer in turns(name, "code", 2000))
    assert insecure == pytest.approx(AUTHORS[name]["insecure_code"], abs=0.02)
    author = Author(random.Random(0), name, ALL_INSECURE)
    assert all(author.turn("code")[1] in INSECURE for _ in range(100))


@given(SEEDS, NAMES)
def test_requests_do_not_depend_on_the_share_of_insecure_code(seed, name):
    """The gap by earlier code compares two authors' answers to the same requests."""
    asked = [Author(random.Random(seed), name, authors).turn("code")[0] for authors in (AUTHORS, ALL_INSECURE)]
    assert asked[0] == asked[1]


def test_short_requests_have_the_task_and_no_template():
    shown = [coding.request(coding.CHOICES[0], "user", form) for form in coding.SHORT_FORMS]
    assert len(shown) == 4
    assert not any("# COMPLETE HERE" in text for text in shown)
    assert all("copy a user file" in text for text in shown)
