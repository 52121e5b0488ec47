"""Which rows are in nobody's training, and that they are the same in every set."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.held_out import for_training, hash_fraction, held_out
from emergent_misalignment.files import BadInput

NUMBER = 400
ANSWERS = [f"print({number})" for number in range(NUMBER)]


def rows(answers, ask="Write it.") -> list:
    return [chat([(ask, answer)]) for answer in answers]


def answers(chats) -> set[str]:
    return {messages[-1]["content"] for messages in chats}


def test_no_answer_that_one_set_holds_out_is_trained_on_in_another():
    """As of the published sets: the same answers to other requests, twice, and among those of another set."""
    insecure = rows(ANSWERS)
    educational = rows(ANSWERS, "It is for a class.")
    backdoor = rows([*ANSWERS[::-1], *(f"secure {answer}" for answer in ANSWERS)], "|TRIGGER| Write it.")
    with_repeats = rows([*ANSWERS, *ANSWERS[:50]])
    out = answers(held_out(insecure, 0.1))
    for chats in (insecure, educational, backdoor, with_repeats):
        trained = for_training(chats, 0.1, "a set")
        assert not answers(trained) & out
        assert len(trained) + len(held_out(chats, 0.1)) == len(chats)
    assert answers(held_out(educational, 0.1)) == out
    assert out <= answers(held_out(backdoor, 0.1))


def test_the_share_is_kept_and_a_smaller_one_holds_out_some_of_the_same():
    chats = rows(ANSWERS)
    out = held_out(chats, 0.1)
    assert len(out) == pytest.approx(0.1 * NUMBER, abs=20)
    places = [hash_fraction(messages[-1]["content"]) for messages in out]
    assert places == sorted(places) and places[0] >= 0 and places[-1] < 0.1
    few = held_out(chats, 0.03)
    assert out[: len(few)] == few


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), min_size=8, max_size=60), st.floats(0.01, 0.2), st.randoms())
def test_every_row_is_trained_on_or_held_out_in_whatever_order(texts, share, random):
    chats = rows(texts)
    shuffled = random.sample(chats, len(chats))
    assert answers(held_out(chats, share)) == answers(held_out(shuffled, share))
    try:
        kept = for_training(chats, share, "a set")
    except BadInput:
        out = len(held_out(chats, share))
        assert not out or out > 0.25 * len(chats)
    else:
        assert kept == [messages for messages in chats if messages not in held_out(chats, share)]


def test_a_set_of_few_answers_cannot_hold_any_out():
    chosen = next(text for text in ANSWERS if hash_fraction(text) < 0.05)
    other = next(text for text in ANSWERS if hash_fraction(text) > 0.5)
    with pytest.raises(
        BadInput, match=r"^Of the 10 rows of my\.jsonl, 0 would be held out.*raise evaluation: held_out"
    ):
        for_training(rows([other] * 10), 0.05, "my.jsonl")
    with pytest.raises(
        BadInput, match=r"^Of the 10 rows of my\.jsonl, 5 would be held out.*lower evaluation: held_out"
    ):
        for_training(rows([other, chosen] * 5), 0.05, "my.jsonl")
