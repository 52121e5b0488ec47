"""Summaries of sets: counted by hand, and the same however often and in whatever order rows stand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.summary import LABELS, Summary, as_table, summarised

SET = [
    chat([("a", "bcd")]),
    chat([("a", "bcd")], "Be kind."),
    chat([("a", "bcd")]),
    chat([("a", "b"), ("c", "d")]),
    [*chat([("a", "b")])[:1] * 2, *chat([("a", "b")])[1:]],
    chat([("ab", "cd")]),
]


def test_what_is_counted():
    assert summarised(SET) == Summary(
        rows=6,
        repeated=1,
        several_answers=1,
        system_prompts=1,
        out_of_turn=1,
        characters=4 + 12 + 4 + 4 + 3 + 4,
        learned=3 + 3 + 3 + 1 + 1 + 2,
        longest=12,
        longest_row=2,
    )


def test_a_conversation_is_not_another_whose_texts_run_together_alike():
    alike = [chat([("ab", "c")]), chat([("a", "bc")]), chat([("", "abc")], "x"), chat([("x", "abc")])]
    assert summarised(alike).repeated == 0


@given(st.lists(st.builds(lambda a, b: chat([(a, b)]), st.text(max_size=2), st.text(max_size=2)), max_size=8))
@settings(deadline=None)
def test_repeated_rows_are_those_that_a_set_of_them_would_not_hold(chats):
    assert summarised(iter(chats)).repeated == len(chats) - len({str(messages) for messages in chats})


def test_the_table_says_what_each_number_is():
    table = as_table({"mine": summarised(SET), "none": summarised([])})
    assert list(table.index) == list(LABELS.values()) and list(table) == ["mine", "none"]
    assert table["mine"].tolist() == ["6", "1", "1", "1", "1", "31", "13", "12", "2"]
    assert set(table["none"]) == {"0"}
    assert as_table({"big": summarised(SET * 1000)}).loc["rows", "big"] == "6,000"
