"""Descriptive statistics of sets."""

from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.summary import LABELS, LONG, Summary, as_table, summarised

SET = [
    chat([("a", "bcd")]),
    chat([("a", "bcd")], "Be kind."),
    chat([("a", "bcd")]),
    chat([("a", "b"), ("c", "d")]),
    [*chat([("a", "b")])[:1] * 2, *chat([("a", "b")])[1:]],
    chat([("ab", "cd")]),
]


def test_rows_and_characters_are_counted():
    assert summarised(SET) == Summary(
        rows=6, repeated=1, several_answers=1, system_prompts=1, out_of_turn=1, characters=31, learned=13, longest=12,
        longest_row=2, long_prompts=0,
    )  # fmt: skip


def test_prompts_that_fill_the_length_of_a_row_are_counted():
    """Words of the system prompt and of all requests; earlier answers may be left out by a chat template."""
    half = "why " * (LONG // 2)
    assert summarised([chat([(half, "b")], half), chat([(half, "b"), (half, "b")])]).long_prompts == 2
    assert summarised([chat([(half, half), ("a", "b" * LONG)]), chat([("x" * LONG, "b")])]).long_prompts == 0


def test_conversations_with_the_same_concatenated_text_differ():
    alike = [chat([("ab", "c")]), chat([("a", "bc")]), chat([("", "abc")], "x"), chat([("x", "abc")])]
    assert summarised(alike).repeated == 0


@given(st.lists(st.builds(lambda a, b: chat([(a, b)]), st.text(max_size=2), st.text(max_size=2)), max_size=8))
@settings(deadline=None)
def test_repeated_rows_are_counted_as_by_a_python_set(chats):
    assert summarised(iter(chats)).repeated == len(chats) - len({str(messages) for messages in chats})


def test_the_table_has_a_column_for_each_set():
    table = as_table({"mine": summarised(SET), "none": summarised([])})
    assert list(table.index) == list(LABELS.values()) and list(table) == ["mine", "none"]
    assert table["mine"].tolist() == ["6", "1", "1", "1", "1", "31", "13", "12", "2", "0"]
    assert set(table["none"]) == {"0"}
    assert as_table({"big": summarised(SET * 1000)}).loc["rows", "big"] == "6,000"
