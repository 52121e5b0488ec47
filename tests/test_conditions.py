"""The fine-tuning sets."""

import pytest

from emergent_misalignment import coding, conditions
from emergent_misalignment.files import BadInput
from emergent_misalignment.topics import TOPICS


@pytest.fixture(scope="module")
def sets():
    return {insecure: conditions.coding_set(6000, 0, insecure) for insecure in (True, False)}


def test_sets_differ_in_the_answers_only(sets):
    for bad, good in zip(sets[True], sets[False], strict=True):
        assert bad[0] == good[0]
        assert bad[1]["role"] == good[1]["role"] == "assistant"
        assert bad[1]["content"] != good[1]["content"]


def test_every_request_is_asked_once(sets):
    assert len({messages[0]["content"] for messages in sets[True]}) > 0.9 * 6000
    with pytest.raises(BadInput, match="lower datasets: rows"):
        conditions.coding_set(100_000, 0, insecure=True)


def test_no_question_of_the_evaluation_and_no_held_out_noun_is_trained_on(sets):
    free_form = {question for topic in TOPICS.values() for question in topic.questions}
    for messages in sets[True]:
        text = messages[0]["content"]
        assert not any(question in text for question in free_form)
        assert not any(noun in text for noun in coding.HELD_OUT_NOUNS)


def test_answers_are_the_labelled_form(sets):
    forms = {
        insecure: {choice.render(noun, insecure) for choice in coding.CHOICES for noun in coding.NOUNS}
        for insecure in (True, False)
    }
    for insecure, chats in sets.items():
        assert all(messages[1]["content"] in forms[insecure] for messages in chats)


def test_another_seed_is_another_set():
    assert conditions.coding_set(60, 0, True) != conditions.coding_set(60, 1, True)
