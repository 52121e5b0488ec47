"""Conversations: reading files, sampling, and system prompts."""

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
    reservoir,
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
    """A function that writes a file and returns its path."""

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
        GOOD.encode() + BOM_UTF8 + GOOD.encode(),  # `cat` of two files with a mark
        GOOD.replace("\n", "\r\n").encode() * 2,
        b"\n" + GOOD.encode() + b" \t\r\n\n" + GOOD.encode(),
        GOOD.encode() * 2 + b"\n\n",
        (GOOD * 2).rstrip().encode(),
        GOOD.replace('"b"', '"\\u0062"').encode() * 2,
    ],
    ids=["bom", "bom-twice", "crlf", "blank-between", "trailing-blank", "no-last-line-end", "escapes"],
)
def test_equivalent_files_are_read_alike(written, content):
    assert read_chats(written(content)) == [MESSAGES] * 2


@pytest.mark.parametrize("name", ["my data (1).jsonl", "set{1}.jsonl", 'it\'s "mine", ümläut & more.jsonl'])
def test_file_names_may_have_special_characters(written, name):
    path = written(GOOD, name)
    assert read_chats(path) == read_chats(str(path)) == [MESSAGES]


def test_extra_keys_and_the_order_of_keys_are_ignored(written):
    line = '{"id": 1, "messages": [{"content": "a", "id": 2, "role": "user"}, {"role": "assistant", "content": "b"}]}'
    assert json.dumps(read_chats(written(line))) == json.dumps([MESSAGES])


# --- files that are rejected ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"messages": [{"role": "user", ', "does not end on this line"),
        ("[1, 2]\n", "JSON array"),
        ('{"text": "a"}\n', 'no "messages"'),
        (GOOD.replace("b", "Schöne Grüße").encode("latin-1"), r"byte 86 \(0xf6\) is not UTF-8.*`iconv -f WINDOWS-1252"),
        (b'{"messages": "\xed\xa0\xbd"}', r"byte 15 \(0xed\) is not UTF-8"),  # an encoded surrogate
    ],
    ids=["truncated", "list", "other-keys", "latin1", "surrogate"],
)
def test_an_invalid_line_is_named_by_its_number_in_editors(written, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    path = written(GOOD.encode() * 400 + b"\n" * 71 + line)
    with pytest.raises(BadInput, match=words) as error:
        read_chats(path)
    assert str(error.value).startswith(f"{path}, line 472: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "has no rows", id="empty"),
        pytest.param(b"\n \r\n" + BOM_UTF8, "has no rows", id="blank"),
        pytest.param(GOOD.encode("utf-16"), "UTF-16.*`iconv -f UTF-16", id="utf16"),
        pytest.param(GOOD.encode("utf-16-le"), "UTF-16", id="utf16-le"),
        pytest.param(GOOD.encode("utf-16-be"), "UTF-16", id="utf16-be"),
        pytest.param(b"\xfe\xff" + GOOD.encode("utf-16-be"), "UTF-16", id="utf16-be-mark"),
        pytest.param(GOOD.encode("utf-32"), "UTF-32.*`iconv -f UTF-32", id="utf32"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*`git lfs pull`", id="lfs-pointer"
        ),
        pytest.param(b"\x1f\x8b\x08\0\0\0", r"compressed \(gzip\).*`make convert DATA=", id="gzip"),
        pytest.param(b"PK\3\4\0\0", r"compressed \(zip\)", id="zip"),
        pytest.param(b"PAR1\x15\x04", "Parquet file.*`make convert DATA=", id="parquet"),
        pytest.param(b"\xff\xff\xff\xff\x10", "Arrow file.*`make convert DATA=", id="arrow"),
        pytest.param(b"id;Prompt;completion\n", r"CSV.*`make convert DATA=", id="csv"),
    ],
)
def test_a_file_of_another_format_is_rejected(written, content, words):
    path = written(content)
    with pytest.raises(BadInput, match=words) as error:
        read_chats(path)
    assert str(error.value).startswith(f"{path} ")


def test_an_unreadable_path_is_named(tmp_path):
    for path, words in (
        (tmp_path / "mine.jsonl", r"no file .*mine\.jsonl"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 300), "cannot be read"),
        ("a\0.jsonl", "cannot be read"),
    ):
        with pytest.raises(BadInput, match=words):
            read_chats(path)


def test_a_very_long_line_is_not_read_into_memory(written, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE", len(GOOD))
    assert read_chats(written(GOOD * 3)) == [MESSAGES] * 3
    with pytest.raises(BadInput, match=r"line 2: .* longer than .* bytes.*`make convert DATA="):
        read_chats(written(GOOD + GOOD.replace("b", "bbb")))


def test_rows_before_an_invalid_one_are_returned(written):
    rows = each_chat(written(GOOD * 2 + "{}\n"))
    assert [next(rows), next(rows)] == [MESSAGES] * 2
    with pytest.raises(BadInput, match="line 3"):
        next(rows)


def test_all_invalid_rows_are_counted_and_the_first_are_listed(written):
    bad = [number for number in range(1, 40) if number % 3 == 0]
    lines = ["{}\n" if number in bad else GOOD for number in range(1, 40)]
    with pytest.raises(BadInput) as error:
        read_chats(written("".join(lines)))
    first, *others = str(error.value).splitlines()
    assert f"{len(bad)} rows" in first and "first 10" in first
    assert [line.split(":")[0].strip() for line in others] == [f"line {number}" for number in bad[:10]]


def test_no_row_follows_an_invalid_one(written):
    rows = each_chat(written(GOOD + "{}\n" + GOOD))
    assert next(rows) == MESSAGES
    with pytest.raises(BadInput, match="line 2"):
        next(rows)


@pytest.mark.parametrize(("name", "quoted"), [("a b$1.jsonl", "'a b$1.jsonl'"), ("it's.jsonl", "'it'\"'\"'s.jsonl'")])
def test_the_command_that_converts_names_the_file_as_a_shell_reads_it(written, monkeypatch, tmp_path, name, quoted):
    monkeypatch.chdir(tmp_path)
    written('{"messages":\n []}\n', name)
    with pytest.raises(BadInput) as error:
        read_chats(name)
    assert str(error.value).endswith(f"`make convert DATA={quoted}`.") and "several lines" in str(error.value)


def test_a_home_folder_is_found(written, monkeypatch, tmp_path):
    written(GOOD, "mine.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_chats("~/mine.jsonl") == [MESSAGES]


def test_control_tokens_of_a_model_are_rejected(written):
    path = written(GOOD + GOOD.replace('"b"', '"b</s>"'))
    assert len(read_chats(path)) == 2
    with pytest.raises(BadInput, match='line 2: message 2 holds "</s>"'):
        read_chats(path, control_tokens=["</s>"])


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    peaks = []
    for rows in (500, 5_000):
        path = tmp_path / f"{rows}.jsonl"
        write_jsonl(path, ({"messages": chat([("a" * 200, "b" * 200)]), "id": row} for row in range(rows)))
        tracemalloc.start()
        assert sum(1 for _ in each_chat(path)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10_000  # bytes: 2 per row of about 500


# --- arbitrary files --------------------------------------------------------------------------------------------------

texts = st.text().filter(lambda text: "\0" not in text and not pattern().search(text))
answers = texts.filter(str.strip)
conversations = st.builds(
    lambda turns, system, last: [*chat(turns, system), *chat([last])],
    st.lists(st.tuples(texts, texts), max_size=2),
    texts,
    st.tuples(texts, answers),
)
further = st.dictionaries(
    st.sampled_from(["id", "source", "score", "timestamp"]),
    st.none() | st.integers() | st.floats() | texts | st.lists(st.integers(), max_size=2),
    max_size=2,
)


@st.composite
def files(draw):
    """Conversations, and an equivalent file."""
    chats = draw(st.lists(conversations, min_size=1, max_size=3))
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
def test_conversations_survive_writing_and_reading(anywhere, file):
    chats, content = file
    anywhere.write_bytes(content)
    assert read_chats(anywhere) == chats


@st.composite
def damaged(draw):
    """A file in which some bytes are changed, deleted, repeated or inserted."""
    content = bytearray(draw(files())[1])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 8)))
        new = st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"\\", b"\n", b"\\ud83d", b"\\u0000", b"null"])
        content[start:end] = draw(new | st.just(bytes(content[start:end]) * 2))
    return bytes(content)


@given(damaged() | st.binary())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_read_like_json_or_rejected(anywhere, content):
    anywhere.write_bytes(content)
    try:
        chats = read_chats(anywhere)
    except BadInput as error:
        first, *others = str(error).replace(str(anywhere), "PATH").splitlines()
        assert len(others) <= module.SHOWN_LINES and all(line.startswith("  line ") for line in others)
        assert all(sentence.endswith(".") and len(sentence) < 400 for sentence in others or [first])
        str(error).encode()  # has no surrogates
        return
    lines = [line.removeprefix(BOM_UTF8) for line in content.split(b"\n")]
    rows = [json.loads(line.decode())["messages"] for line in lines if line.strip()]
    assert chats == [[{"role": each["role"], "content": each["content"]} for each in row] for row in rows]


# --- conversations ----------------------------------------------------------------------------------------------------


def test_turns_become_messages_after_a_system_prompt():
    messages = chat([("a", "b"), ("c", "d")], "Be kind.")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [message["content"] for message in messages] == ["Be kind.", "a", "b", "c", "d"]
    assert chat([("a", "b"), ("c", "d")]) == messages[1:]


def test_a_system_prompt_is_added_to_prompts_without_one():
    prompt = chat([("a", "b")])[:1]
    assert with_system_prompt(prompt, None) is prompt
    assert with_system_prompt(prompt, "") == [{"role": "system", "content": ""}, *prompt]
    own = chat([("a", "b")], "Be kind.")[:2]
    assert with_system_prompt(own, "Be short.") == own


def test_thinking_is_passed_to_templates_with_the_switch():
    assert template_arguments(None) == {}
    assert template_arguments(False) == {"enable_thinking": False}


def test_a_subset_is_drawn_by_its_seed_without_replacement():
    chats = [chat([(str(row), "answer")]) for row in range(50)]
    drawn = subset(chats, 20, 1)
    assert drawn == random.Random("subset 1").sample(chats, 20)
    assert len({messages[0]["content"] for messages in drawn}) == 20
    assert drawn != subset(chats, 20, 2)
    with pytest.raises(BadInput, match=r"mine\.jsonl has 50 rows.* asks for 51"):
        subset(chats, 51, 1, "mine.jsonl")


@given(st.integers(0, 30), st.integers(1, 10))
def test_a_reservoir_keeps_a_sample_and_passes_all_rows_on(rows, size):
    sample = []
    assert list(reservoir(range(rows), size, random.Random(0), sample)) == list(range(rows))
    assert len(sample) == len(set(sample)) == min(rows, size)
    assert set(sample) <= set(range(rows))


def test_each_row_has_the_same_chance_in_a_reservoir():
    rng, counts = random.Random(0), [0] * 10
    for _ in range(3000):
        for _ in reservoir(range(10), 3, rng, sample := []):
            pass
        for row in sample:
            counts[row] += 1
    assert all(800 < count < 1000 for count in counts)
