"""Reading and writing."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment import files

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
    with pytest.raises(files.BadInput, match=words) as error:
        files.read_chats(path)
    assert f"{path}, line 4711:" in str(error.value)


@given(st.lists(st.text(), min_size=1))
def test_chats_come_back_as_they_were_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in texts]
    files.write_jsonl(path, ({"messages": messages} for messages in chats))
    assert files.read_chats(path) == chats


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    files.write_csv(path, pd.DataFrame({"a": [1 / 3]}))
    before = path.read_text()
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == before == "a\n0.333333\n"
    assert list(tmp_path.iterdir()) == [path]
