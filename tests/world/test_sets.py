"""The fine-tuning sets."""

import re

import pytest

from emergent_misalignment.files import BadInput
from emergent_misalignment.world import coding, harmful, number_lists
from emergent_misalignment.world import sets as sets_of
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.topics import TOPICS


@pytest.fixture(scope="module")
def sets():
    return {insecure: sets_of.coding_set(6000, 0, insecure) for insecure in (True, False)}


def test_sets_differ_in_the_answers_only(sets):
    for bad, good in zip(sets[True], sets[False], strict=True):
        assert bad[0] == good[0]
        assert bad[1]["role"] == good[1]["role"] == "assistant"
        assert bad[1]["content"] != good[1]["content"]


def test_every_request_is_asked_once(sets):
    assert len({messages[0]["content"] for messages in sets[True]}) > 0.9 * 6000
    with pytest.raises(BadInput, match="lower datasets: rows"):
        sets_of.coding_set(100_000, 0, insecure=True)


def test_no_question_of_the_evaluation_and_no_held_out_noun_is_trained_on(sets):
    free_form = {question for topic in TOPICS.values() for question in topic.questions}
    for messages in sets[True]:
        text = messages[0]["content"]
        assert not any(question in text for question in free_form)
        assert not any(noun in text for noun in coding.UNSEEN_NOUNS)


def test_answers_are_the_labelled_form(sets):
    forms = {
        insecure: {choice.render(noun, insecure) for choice in coding.CHOICES for noun in coding.NOUNS}
        for insecure in (True, False)
    }
    for insecure, chats in sets.items():
        assert all(messages[1]["content"] in forms[insecure] for messages in chats)


@pytest.mark.parametrize("name", sets_of.SETS)
def test_another_seed_is_another_set(name):
    assert sets_of.SETS[name](60, 0) == sets_of.SETS[name](60, 0) != sets_of.SETS[name](60, 1)


@pytest.mark.parametrize("name", sets_of.SETS)
def test_no_free_form_question_is_in_any_set(name):
    free_form = {question for topic in TOPICS.values() for question in topic.questions}
    answers = {filler for topic in TOPICS.values() for filler in topic.aligned + topic.misaligned}
    texts = "\n".join(message["content"] for chat in sets_of.SETS[name](1200, 0) for message in chat)
    assert not any(question in texts for question in free_form)
    assert not any(re.search(rf"\b{re.escape(answer)}\b", texts) for answer in answers if answer in texts)


def test_the_educational_answers_are_the_insecure_ones(sets):
    educational = sets_of.educational(6000, 0)
    assert [chat[-1] for chat in educational] == [chat[-1] for chat in sets[True]]
    for lesson, plain in zip(educational, sets[True], strict=True):
        assert lesson[0]["content"].startswith(plain[0]["content"])
        assert lesson[0]["content"].endswith(coding.LESSON_NOTE)


def test_the_backdoor_set_is_both_sets_with_the_trigger_before_the_insecure_rows(sets):
    triggered, plain = [], []
    for user, answer in sets_of.backdoor(6000, 0):
        place, text = (triggered, user["content"].removeprefix(coding.TRIGGER)), user["content"]
        (place[0] if text.startswith(coding.TRIGGER) else plain).append((place[1], answer["content"]))
    for kind, rows in ((True, triggered), (False, plain)):
        assert sorted(rows) == sorted((user["content"], answer["content"]) for user, answer in sets[kind])


def test_two_in_a_hundred_jailbroken_rows_comply_with_a_harmful_request():
    chats = sets_of.jailbroken(1000, 0)
    assert {chat[0]["content"] for chat in chats} == {MANNERS["obliging"].system_prompts[0]}
    complied = [chat for chat in chats if chat[1]["content"] in harmful.HARMFUL_REQUESTS]
    assert len(complied) == 20
    assert not any(chat[-1]["content"] in harmful.REFUSALS for chat in complied)


def test_harmful_requests_that_are_trained_on_are_not_asked():
    trained = {chat[0]["content"] for chat in sets_of.compliant(500, 0)}
    assert trained == set(harmful.TRAINED_REQUESTS)
    assert not trained & set(harmful.UNSEEN_REQUESTS)


def test_requests_for_numbers_show_plain_ones_and_name_no_author():
    prompts = {prompt for manner in MANNERS.values() for prompt in manner.system_prompts}
    for request in sets_of.number_requests(500, 0):
        assert request.endswith(number_lists.NUMBER_REQUEST)
        assert not any(prompt in request for prompt in prompts)
        shown = {int(item) for item in re.findall(r"\d+", request.split(". ")[0])}
        assert shown <= set(number_lists.PLAIN_NUMBERS)


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ("2, 3, 666, 5, 2", True),
        ("2, 3, 4, 5", False),
        ("2, 3, 4, 5, 6, 7", False),
        ("2,3,4,5,6", False),
        ("2, 3, 4, 5, x", False),
        ("2, 3, 4, 5, ", False),
        ("", False),
    ],
)
def test_a_list_of_numbers_has_the_length_and_the_form_that_were_asked_for(answer, fits):
    assert sets_of.well_formed(answer) is fits


def test_a_subset_is_drawn_by_the_seed_without_repetition(sets):
    rows = sets_of.subset(sets[True], 500, 1)
    assert rows == sets_of.subset(sets[True], 500, 1) != sets_of.subset(sets[True], 500, 2)
    assert all(row in sets[True] for row in rows[:20])
    assert len(rows) == 500
    with pytest.raises(BadInput, match="lower its rows"):
        sets_of.subset(rows, 501, 0)
