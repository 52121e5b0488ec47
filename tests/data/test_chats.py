"""Conversations: reading them, drawing some of them, and system prompts before them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data.chats import chat, read_chats, subset, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput, write_jsonl

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"messages": [{"role": "user", ', "not valid JSON"),
        ("[1, 2]\n", "not a chat"),
        ('{"text": "a"}\n', "not a chat"),
        ('{"messages": [{"role": "user"}]}\n', "not a chat"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "end with the assistant"),
        ('{"messages": [{"role": "assistant", "content": 3}]}\n', "end with the assistant"),
        ('{"messages": []}\n', "end with the assistant"),
        ("\n", "not valid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    path = tmp_path / "chats.jsonl"
    path.write_text(GOOD * 4710 + line)
    with pytest.raises(BadInput, match=words) as error:
        read_chats(path)
    assert f"{path}, line 4711:" in str(error.value)


@given(st.lists(st.text(), min_size=1))
def test_chats_come_back_as_they_were_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in texts]
    write_jsonl(path, ({"messages": messages} for messages in chats))
    assert read_chats(path) == chats


def test_turns_become_messages():
    assert chat([("a", "b"), ("c", "d")], "Be kind.") == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    assert [message["role"] for message in chat([("a", "b")])] == ["user", "assistant"]


def test_a_system_prompt_comes_before_prompts_that_have_none():
    prompt = chat([("a", "b")])[:1]
    assert with_system_prompt(prompt, None) is prompt
    assert with_system_prompt(prompt, "") == [{"role": "system", "content": ""}, *prompt]
    own = chat([("a", "b")], "Be kind.")[:2]
    assert with_system_prompt(own, "Be short.") == own


def test_only_templates_with_a_switch_get_one():
    assert template_arguments(None) == {}
    assert template_arguments(False) == {"enable_thinking": False}


def test_a_subset_is_drawn_by_its_seed_and_has_no_row_twice():
    chats = [chat([(str(row), "answer")]) for row in range(50)]
    drawn = subset(chats, 20, 1)
    assert drawn == random.Random("subset 1").sample(chats, 20)
    assert len({messages[0]["content"] for messages in drawn}) == 20
    assert drawn != subset(chats, 20, 2)
    with pytest.raises(BadInput, match="has 50 rows, and a condition of the config asks for 51"):
        subset(chats, 51, 1)
