"""Conversations: reading files of them, drawing some of them, and system prompts before them."""

import json
import random
import tracemalloc
from codecs import BOM_UTF8

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emergent_misalignment.data import chats as module
from emergent_misalignment.data.chats import (
    chat,
    each_chat,
    read_chats,
    subset,
    template_arguments,
    with_system_prompt,
)
from emergent_misalignment.data.control_tokens import pattern
from emergent_misalignment.files import BadInput, write_jsonl

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
MESSAGES = chat([("a", "b")])


@pytest.fixture
def written(tmp_path):
    """Writes a file of these bytes and returns its path."""

    def write(content: bytes | str, name: str = "set.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- files that are read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        BOM_UTF8 + GOOD.encode() * 2,
        GOOD.encode() + BOM_UTF8 + GOOD.encode(),  # as `cat` leaves it of two files with a mark
        GOOD.replace("\n", "\r\n").encode() * 2,
        b"\n" + GOOD.encode() + b" \t\r\n\n" + GOOD.encode(),
        GOOD.encode() * 2 + b"\n\n",
        (GOOD * 2).rstrip().encode(),
        GOOD.replace('"b"', '"\\u0062"').encode() * 2,
    ],
    ids=["bom", "bom-twice", "crlf", "blank-between", "trailing-blank", "no-last-line-end", "escapes"],
)
def test_harmless_differences_are_none(written, content):
    assert read_chats(written(content)) == [MESSAGES] * 2


@pytest.mark.parametrize("name", ["my data (1).jsonl", "set{1}.jsonl", 'it\'s "mine", ümläut & more.jsonl'])
def test_a_file_may_have_any_name(written, name):
    path = written(GOOD, name)
    assert read_chats(path) == read_chats(str(path)) == [MESSAGES]


def test_ends_of_lines_within_a_text_are_text(written):
    text = "Hi\u2028there\u2029\x85\x0b\x0c\x1c\x1d\x1e"
    line = json.dumps({"messages": chat([(text, text)])}, ensure_ascii=False)
    assert "\u2028" in line
    assert read_chats(written(line + "\n" + GOOD)) == [chat([(text, text)]), MESSAGES]


def test_what_is_read_is_exactly_the_published_schema(written):
    line = '{"id": 1, "messages": [{"content": "a", "id": 2, "role": "user"}, {"role": "assistant", "content": "b"}]}'
    assert json.dumps(read_chats(written(line))) == json.dumps([MESSAGES])


# --- files that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"messages": [{"role": "user", ', "does not end on this line; if it was cut off"),
        ("[1, 2]\n", "begins a JSON array"),
        ('{"text": "a"}\n', 'no "messages"'),
        ('{"messages": [{"role": "user"}]}\n', 'no "content"'),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "ends with a turn of user"),
        ('{"messages": []}\n', '"messages" is empty'),
        (GOOD.replace("b", "Schöne Grüße").encode("latin-1"), r"byte 86 \(0xf6\) is not UTF-8.*`iconv -f WINDOWS-1252"),
        (b'{"messages": "\xed\xa0\xbd"}', r"byte 15 \(0xed\) is not UTF-8"),  # half of a pair, as bytes
    ],
    ids=["truncated", "list", "other-keys", "no-content", "user-last", "empty", "latin1", "surrogate"],
)
def test_a_bad_line_is_named_as_editors_count_it(written, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    path = written(GOOD.encode() * 400 + b"\n" * 71 + line)
    with pytest.raises(BadInput, match=words) as error:
        read_chats(path)
    assert str(error.value).startswith(f"{path}, line 472: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no rows; a set needs"),
        (b"\n \r\n" + BOM_UTF8, "has no rows; a set needs"),
        (GOOD.encode("utf-16"), r"encoded in UTF-16 and must be in UTF-8; `iconv -f UTF-16"),
        (GOOD.encode("utf-16-le"), "encoded in UTF-16"),
        (GOOD.encode("utf-16-be"), "encoded in UTF-16"),
        (b"\xfe\xff" + GOOD.encode("utf-16-be"), "encoded in UTF-16"),
        (GOOD.encode("utf-32"), r"encoded in UTF-32 and must be in UTF-8; `iconv -f UTF-32"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS's pointer.*`git lfs pull`"),
        (b"\x1f\x8b\x08\0\0\0", r"is compressed \(gzip\); unpack it"),
        (b"PK\3\4\0\0", r"is compressed \(zip\); unpack it"),
        (b"PAR1\x15\x04", "is a Parquet file; write it as JSONL"),
    ],
    ids=[
        *("empty", "blank", "utf16", "utf16-le", "utf16-be", "utf16-be-mark", "utf32"),
        *("lfs-pointer", "gzip", "zip", "parquet"),
    ],
)
def test_a_file_of_another_kind_is_named(written, content, words):
    path = written(content)
    with pytest.raises(BadInput, match=words) as error:
        read_chats(path)
    assert str(error.value).startswith(f"{path} ")


def test_a_path_to_no_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"There is no file .*mine\.jsonl; correct its path"):
        read_chats(tmp_path / "mine.jsonl")
    with pytest.raises(BadInput, match="is a folder; name the file in it"):
        read_chats(tmp_path)
    for unreadable in (tmp_path / ("x" * 300), "a\0.jsonl"):
        with pytest.raises(BadInput, match="cannot be read"):
            read_chats(unreadable)


def test_a_line_that_is_no_row_is_not_read_into_memory(written, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", len(GOOD))
    assert read_chats(written(GOOD * 3)) == [MESSAGES] * 3
    with pytest.raises(BadInput, match=r"line 2: it is longer than .* bytes.*`jq -c '\.\[\]' OLD > NEW`"):
        read_chats(written(GOOD + GOOD.replace("b", "bbb")))


def test_rows_before_a_bad_one_are_given_out(written):
    rows = each_chat(written(GOOD * 2 + "{}\n"))
    assert [next(rows), next(rows)] == [MESSAGES] * 2
    with pytest.raises(BadInput, match="line 3"):
        next(rows)


def test_control_tokens_of_a_model_are_looked_for(written):
    path = written(GOOD + GOOD.replace('"b"', '"b</s>"'))
    assert len(read_chats(path)) == 2
    with pytest.raises(BadInput, match='line 2: message 2 holds "</s>"'):
        read_chats(path, control_tokens=["</s>"])


def test_memory_is_flat_however_many_rows_there_are(tmp_path):
    peaks = []
    for rows in (500, 5_000):
        path = tmp_path / f"{rows}.jsonl"
        write_jsonl(path, ({"messages": chat([("a" * 200, "b" * 200)]), "id": row} for row in range(rows)))
        tracemalloc.start()
        assert sum(1 for _ in each_chat(path)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10_000  # bytes: two for each row, of which each has 500


# --- whatever the file holds ------------------------------------------------------------------------------------------

texts = st.text().filter(lambda text: "\0" not in text and not pattern().search(text))
answers = texts.filter(str.strip)
conversations = st.builds(
    lambda turns, system, last: [*chat(turns, system), *chat([last])],
    st.lists(st.tuples(texts, texts), max_size=2),
    texts,
    st.tuples(texts, answers),
)
further = st.dictionaries(
    st.sampled_from(["id", "source", "score", "meta"]),
    st.none() | st.integers() | st.floats() | texts | st.lists(st.integers(), max_size=2),
    max_size=2,
)


sets = st.lists(conversations, min_size=1, max_size=3)


@st.composite
def files(draw):
    """Some conversations, and a file that holds them in one of the harmless ways."""
    chats = draw(sets)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = []
    for messages in chats:
        inside = [_in_any_order(draw, message | draw(further)) for message in messages]
        line = json.dumps(_in_any_order(draw, {"messages": inside} | draw(further)), ensure_ascii=draw(st.booleans()))
        lines += [*draw(st.lists(st.sampled_from(["", " ", "\t"]), max_size=1)), line]
    content = end.join(lines).encode() + draw(st.sampled_from(["", end, end * 2])).encode()
    return chats, draw(st.sampled_from([b"", BOM_UTF8])) + content


def _in_any_order(draw, keys: dict) -> dict:
    return dict(draw(st.permutations(list(keys.items()))))


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory):
    return tmp_path_factory.mktemp("chats") / "set.jsonl"


@given(files())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_conversations_come_back_as_they_were_however_they_were_written(anywhere, file):
    chats, content = file
    anywhere.write_bytes(content)
    assert read_chats(anywhere) == chats


@st.composite
def damaged(draw):
    """A file of conversations in which some bytes were changed, left out, doubled or put in."""
    content = bytearray(draw(files())[1])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 8)))
        new = st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"\\", b"\n", b"\\ud83d", b"\\u0000", b"null"])
        content[start:end] = draw(new | st.just(bytes(content[start:end]) * 2))
    return bytes(content)


@given(damaged() | st.binary())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_read_as_json_reads_them_or_get_a_sentence(anywhere, content):
    anywhere.write_bytes(content)
    try:
        chats = read_chats(anywhere)
    except BadInput as error:
        sentence = str(error).removeprefix(str(anywhere))
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
        sentence.encode()  # can be shown anywhere
        return
    lines = [line.removeprefix(BOM_UTF8) for line in content.split(b"\n")]
    rows = [json.loads(line.decode())["messages"] for line in lines if line.strip()]
    assert chats == [[{"role": each["role"], "content": each["content"]} for each in row] for row in rows]


# --- conversations ----------------------------------------------------------------------------------------------------


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
    with pytest.raises(BadInput, match=r"mine\.jsonl has 50 rows, and a condition of the config asks for 51"):
        subset(chats, 51, 1, "mine.jsonl")
