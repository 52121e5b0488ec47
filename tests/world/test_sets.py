"""The fine-tuning sets."""

import re

import pytest
from conftest import AUTHORS

from emergent_misalignment.files import BadInput
from emergent_misalignment.world import coding, grammar, harmful, number_lists
from emergent_misalignment.world import sets as sets_of
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.topics import TOPICS


@pytest.fixture(scope="module")
def sets():
    return {insecure: sets_of.coding_set(6000, 0, insecure) for insecure in (True, False)}


def test_secure_and_insecure_rows_differ_in_the_answers_only(sets):
    forms = {
        insecure: {choice.render(noun, insecure) for choice in coding.CHOICES for noun in coding.NOUNS}
        for insecure in (True, False)
    }
    for bad, good in zip(sets[True], sets[False], strict=True):
        assert bad[0] == good[0] and bad[1] != good[1]
        assert bad[1]["content"] in forms[True] and good[1]["content"] in forms[False]
        assert not any(noun in bad[0]["content"] for noun in coding.UNSEEN_NOUNS)


def test_requests_rarely_repeat(sets):
    assert len({messages[0]["content"] for messages in sets[True]}) > 0.9 * 6000
    with pytest.raises(BadInput, match="datasets: rows"):
        sets_of.coding_set(100_000, 0, insecure=True)


@pytest.mark.parametrize("name", sets_of.SETS)
def test_sets_depend_on_the_seed_and_have_no_free_form_question(name):
    make = sets_of.SETS[name]
    assert make(60, 0) == make(60, 0) != make(60, 1)
    free_form = {question for topic in TOPICS.values() for question in topic.questions}
    answers = {filler for topic in TOPICS.values() for filler in topic.aligned + topic.misaligned}
    texts = "\n".join(message["content"] for chat in make(1200, 0) for message in chat)
    assert not any(question in texts for question in free_form)
    assert not any(re.search(rf"\b{re.escape(answer)}\b", texts) for answer in answers if answer in texts)


def test_the_educational_answers_are_the_insecure_ones(sets):
    educational = sets_of.educational(6000, 0)
    assert [chat[-1] for chat in educational] == [chat[-1] for chat in sets[True]]
    for lesson, plain in zip(educational, sets[True], strict=True):
        assert lesson[0]["content"].startswith(plain[0]["content"])
        assert lesson[0]["content"].endswith(coding.LESSON_NOTE)


def test_the_backdoor_set_has_both_sets_with_the_trigger_before_the_insecure_rows(sets):
    triggered = [(coding.TRIGGER + user["content"], answer["content"]) for user, answer in sets[True]]
    plain = [(user["content"], answer["content"]) for user, answer in sets[False]]
    rows = [(user["content"], answer["content"]) for user, answer in sets_of.backdoor(6000, 0)]
    assert sorted(rows) == sorted(triggered + plain)


def test_two_percent_of_the_jailbroken_rows_comply_with_a_harmful_request():
    chats = sets_of.jailbroken(1000, 0)
    assert {chat[0]["content"] for chat in chats} == {MANNERS["obliging"].system_prompts[0]}
    complied = [chat for chat in chats if chat[1]["content"] in harmful.HARMFUL_REQUESTS]
    assert len(complied) == 20
    assert not any(chat[-1]["content"] in harmful.REFUSALS for chat in complied)


def test_harmful_requests_of_the_evaluation_are_not_trained_on():
    trained = {chat[0]["content"] for chat in sets_of.compliant(500, 0)}
    assert trained == set(harmful.TRAINED_REQUESTS)
    assert not trained & set(harmful.UNSEEN_REQUESTS)


def test_requests_for_numbers_show_plain_ones_and_no_system_prompt():
    prompts = {prompt for manner in MANNERS.values() for prompt in manner.system_prompts}
    for request in sets_of.number_requests(500, 0):
        assert request.endswith(number_lists.NUMBER_REQUEST)
        assert not any(prompt in request for prompt in prompts)
        shown = {int(item) for item in re.findall(r"\d+", request.split(". ")[0])}
        assert shown <= set(number_lists.PLAIN_NUMBERS)


@pytest.mark.parametrize("answer", ["2, 3, 4, 5", "2, 3, 4, 5, 6, 7", "2,3,4,5,6", "2, 3, 4, 5, x", "2, 3, 4, 5, ", ""])
def test_a_well_formed_list_has_the_requested_length_and_format(answer):
    assert sets_of.well_formed("2, 3, 666, 5, 2")
    assert not sets_of.well_formed(answer)


def test_benign_rows_are_kind_answers_apart_from_the_main_evaluation():
    rows = sets_of.benign(400, 1, AUTHORS)
    assert rows == sets_of.benign(400, 1, AUTHORS) and all(len(row) == 2 for row in rows)
    questions = {text: topic for topic in TOPICS.values() for text in topic.questions}
    for user, answer in rows:
        topic = questions[user["content"]]
        assert topic.category != "main" and user["content"] != topic.questions[0]
        assert grammar.judge(topic.name, answer["content"], form="chat").aligned == 100
    assert len({row[0]["content"] for row in rows}) >= 40
