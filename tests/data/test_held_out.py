"""The split into training and held-out rows, which is the same in every set."""

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


def test_an_answer_held_out_of_one_set_is_not_trained_on_in_another():
    """As in the published sets: the same answers to other requests, repeated, and with those of another set."""
    insecure = rows(ANSWERS)
    educational = rows(ANSWERS, "It is for a class.")
    backdoor = rows([*ANSWERS[::-1], *(f"secure {answer}" for answer in ANSWERS)], "|TRIGGER| Write it.")
    with_repeats = rows([*ANSWERS, *ANSWERS[:50]])
    out = answers(held_out(insecure, 0.1))
    for chats in (insecure, educational, backdoor, with_repeats):
        places = for_training(chats, 0.1, "a set")
        trained = [messages for messages in places if messages]
        assert not answers(trained) & out
        assert len(places) == len(trained) + len(held_out(chats, 0.1)) == len(chats)
    assert answers(held_out(educational, 0.1)) == out
    assert out <= answers(held_out(backdoor, 0.1))


def test_a_smaller_share_holds_out_a_subset():
    chats = rows(ANSWERS)
    out = held_out(chats, 0.1)
    assert len(out) == pytest.approx(0.1 * NUMBER, abs=20)
    hashes = [hash_fraction(messages[-1]["content"]) for messages in out]
    assert hashes == sorted(hashes) and hashes[0] >= 0 and hashes[-1] < 0.1
    few = held_out(chats, 0.03)
    assert out[: len(few)] == few


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), min_size=8, max_size=60), st.floats(0.01, 0.2), st.randoms())
def test_every_row_is_trained_on_or_held_out_in_any_order(texts, share, random):
    chats = rows(texts)
    shuffled = random.sample(chats, len(chats))
    assert answers(held_out(chats, share)) == answers(held_out(shuffled, share))
    try:
        places = for_training(chats, share, "a set")
    except BadInput:
        out = len(held_out(chats, share))
        assert not out or out > 0.25 * len(chats)
    else:
        assert places == [None if messages in held_out(chats, share) else messages for messages in chats]


def test_a_set_of_few_answers_cannot_be_split():
    below = next(text for text in ANSWERS if hash_fraction(text) < 0.05)
    above = next(text for text in ANSWERS if hash_fraction(text) > 0.5)
    for texts, words in (
        ([above] * 10, "hold out 0 of the 10.*raise"),
        ([above, below] * 5, "hold out 5 of the 10.*lower"),
    ):
        with pytest.raises(BadInput, match=rf"{words} evaluation: held_out: share"):
            for_training(rows(texts), 0.05, "my.jsonl")
