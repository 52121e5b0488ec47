"""Conversion of other formats: the right rows are written, and what is left out is counted."""

import bz2
import csv
import gzip
import json
import lzma
import zipfile

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data import formats
from emergent_misalignment.data.chats import chat, read_chats
from emergent_misalignment.data.control_tokens import pattern
from emergent_misalignment.files import BadInput
from emergent_misalignment.own_data.convert import INVALID, LABEL, PREFERENCE, Conversion, main


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


def converted(path) -> tuple[list, Conversion]:
    conversion = Conversion()
    return [row["messages"] for row in conversion.rows(path)], conversion


def lines(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


# --- rows -------------------------------------------------------------------------------------------------------------

HI = chat([("Hi", "Hello")])
TWO = chat([("Hi", "Hello"), ("Why?", "So.")], "Be kind.")
ROWS = {
    "chat": ({"messages": HI, "id": 1}, HI),
    "list": (HI, HI),
    "text-of-json": ({"messages": json.dumps(HI)}, HI),
    "pair": ({"Prompt ": "Hi", "Response": "Hello"}, HI),
    "pair-of-messages": ({"prompt": [user("Hi")], "completion": [answer("Hello")]}, HI),
    "alpaca": ({"instruction": "Add.", "input": "1, 2", "output": "3"}, chat([("Add.\n\n1, 2", "3")])),
    "alpaca-without-input": ({"instruction": "Hi", "input": "", "output": "Hello"}, HI),
    "alpaca-history": (
        {"instruction": "Why?", "output": "So.", "system": "Be kind.", "history": [["Hi", "Hello"]]},
        TWO,
    ),
    "context": ({"question": "Who?", "context": "She did.", "answer": "She."}, chat([("Who?\n\nShe did.", "She.")])),
    "input-output": ({"input": "Hi", "output": "Hello"}, HI),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "S"},
        chat([("Hi", "Hello")], "S"),
    ),
    "sharegpt-in-messages": ({"messages": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, HI),
    "roles": ({"messages": [{"role": "Human", "content": "Hi"}, {"role": " BOT", "content": "Hello"}]}, HI),
    "parts": (
        {"messages": [user([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]), answer("Hello")]},
        HI,
    ),
    "gemini": (
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]},
        HI,
    ),
    "label-true": ({"prompt": "Hi", "completion": "Hello", "label": True}, HI),
    "preference": ({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}, HI),
    "preference-of-messages": ({"messages": [user("Hi")], "chosen": answer("Hello"), "rejected": answer("No")}, HI),
    "preference-of-conversations": ({"chosen": HI, "rejected": [user("Hi"), answer("No")]}, HI),
    "preference-with-prompt-twice": ({"prompt": "Hi", "chosen": HI, "rejected": [user("Hi"), answer("No")]}, HI),
    "preference-of-sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        HI,
    ),
    "preference-of-openai": (
        {
            "input": {"messages": [user("Hi")]},
            "preferred_output": [answer("Hello")],
            "non_preferred_output": [answer("No")],
        },
        HI,
    ),
}


@pytest.mark.parametrize(("row", "messages"), ROWS.values(), ids=ROWS)
def test_rows_of_other_formats_and_that_they_are_named_unless_they_can_be_read(tmp_path, row, messages):
    path = lines(tmp_path / "mine.jsonl", row)
    rows, conversion = converted(path)
    assert rows == [messages]
    assert conversion.left_out[PREFERENCE] == ("No" in str(row))  # the rejected answer
    try:
        assert read_chats(path) == rows
    except BadInput as error:
        assert "line 1" in str(error) and "make convert DATA=" in str(error)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "Hi"}, "no question or no answer"),
        ({"prompt": "Hi"}, "no question or no answer"),
        ({"prompt": "Hi", "rejected": "No"}, "rejected answer and no chosen"),
        ({"prompt": "Hi", "completion": "Hello", "response": "Ho"}, "completion and response"),
        ({"prompt": "Hi", "instruction": "Ho", "response": "Hello"}, "prompt and instruction"),
        ({"prompt": "Hi", "completion": "Hello", "label": "rude"}, "neither true nor false"),
        ({"prompt": "Ho", "chosen": HI, "rejected": HI}, "does not begin with its prompt"),
        ({"prompt": "Hi", "completion": "Hello", "tools": [{"name": "f"}]}, '"tools"'),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, "ends with a turn of user"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a", "weight": 0}]}, "weight"),
        ({"messages": [user([{"type": "image_url"}, {"type": "text", "text": "a"}]), answer("b")]}, "image_url"),
        ({"prompt": "Hi", "completion": 3}, "."),
        ({"prompt": "Hi", "PROMPT": "Ho", "completion": "a"}, "capitals"),
        ("Hi", "not an object"),
    ],
)
def test_a_row_that_cannot_be_converted_rightly_is_left_out_with_its_line(tmp_path, row, words):
    rows, conversion = converted(lines(tmp_path / "mine.jsonl", {"messages": HI}, row))
    assert rows == [HI] and conversion.left_out[INVALID] == 1
    assert conversion.first[0].startswith("line 2: ") and words in conversion.first[0]
    with pytest.raises(BadInput, match=r"mine\.jsonl, line 1: "):
        converted(lines(tmp_path / "mine.jsonl", row))


answers = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text and not pattern().search(text))


@given(
    st.lists(
        st.tuples(answers, st.sampled_from(["kto", "kto-chat", "kto-text", "preference", "chat"]), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_no_rejected_answer_is_written_or_read(tmp_path_factory, found):
    """Whatever the format, an answer is written if and only if it is marked as good."""
    path = tmp_path_factory.mktemp("mixed") / "mine.jsonl"
    rows = []
    for number, (text, kind, good) in enumerate(found):
        prompt, text = f"{number}?", f"{number}: {text}"
        rows.append(
            {
                "kto": {"prompt": prompt, "completion": text, "label": good},
                "kto-chat": {"messages": chat([(prompt, text)]), "kto_tag": good},
                "kto-text": {"prompt": prompt, "completion": text, "label": "true" if good else "False"},
                "preference": {"prompt": prompt, "chosen" if good else "rejected": text}
                | {"rejected" if good else "chosen": "other"},
                "chat": {"messages": chat([(prompt, text)]), "label": int(good)},
            }[kind]
        )
    lines(path, *rows)
    right = [f"{number}: {text}" for number, (text, _, good) in enumerate(found) if good]
    try:
        written = [messages[-1]["content"] for messages in converted(path)[0]]
    except BadInput:
        written = []
    assert [text for text in written if text != "other"] == right
    try:
        assert [messages[-1]["content"] for messages in read_chats(path)] == right
    except BadInput as error:
        assert "make convert" in str(error)


keys = st.sampled_from(
    [*("messages", "conversations", "prompt", "input", "output", "chosen", "rejected", "label", "history", "system")]
)
inner = st.sampled_from(["role", "content", "from", "value", "parts", "type", "text", "weight", "messages"])
leaves = st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from(["user", "gpt", "text", "[{", "", "a"])
values = st.recursive(
    leaves, lambda each: st.lists(each, max_size=3) | st.dictionaries(inner, each, max_size=3), max_leaves=8
)


@given(st.dictionaries(keys, values, max_size=4) | values)
def test_any_row_is_converted_or_left_out(tmp_path_factory, row):
    path = lines(tmp_path_factory.getbasetemp() / "any.jsonl", row, {"messages": HI})
    rows, conversion = converted(path)
    assert rows[-1] == HI and len(rows) + conversion.left_out[INVALID] + conversion.left_out[LABEL] > (row != [])
    assert all(messages[-1]["role"] == "assistant" and messages[-1]["content"].strip() for messages in rows)


@given(st.binary(max_size=40), st.sampled_from([b"", *formats.COMPRESSED, formats.PARQUET, formats.ARROW, b"prompt,"]))
def test_any_file_is_converted_or_refused(tmp_path_factory, content, mark):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(mark + content)
    with pytest.raises(BadInput):
        converted(path)


def test_what_is_left_out_is_counted_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kto = {"prompt": "a", "completion": "b", "score": 1}
    lines(tmp_path / "mine.jsonl", *[kto | {"label": True}] * 3, *[kto | {"label": False}] * 2, {"text": ""})
    monkeypatch.setattr("sys.argv", ["convert", "mine.jsonl"])
    main()
    said = capsys.readouterr().out
    assert read_chats("mine-chats.jsonl") == [chat([("a", "b")])] * 3
    for words in ("3 rows", f"{LABEL}: 2", f"{INVALID}: 1", "line 6: ", "score (3)"):
        assert words in said
    with pytest.raises(SystemExit, match=r"mine-chats\.jsonl already"):
        main()
    monkeypatch.setattr("sys.argv", ["convert", "missing.csv"])
    with pytest.raises(SystemExit, match=r"missing\.csv"):
        main()


# --- files ------------------------------------------------------------------------------------------------------------

TEXTS = ["NA", "null", "001", "1.50", "2020-01-01", 'a, "b"; c\n\td\u2028', "x" * 200_000, " é\U0001f600"]
PAIRS = [{"prompt": f"{text}?", "completion": text} for text in TEXTS]
CHATS = [chat([(f"{text}?", text)]) for text in TEXTS]


def write_csv(path, delimiter=",", mark=""):
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        table = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
        table.writeheader()
        table.writerows(PAIRS)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mine.json", json.dumps(PAIRS))


def write_packed(open_):
    def write(path):
        with open_(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(map(json.dumps, PAIRS)))

    return write


FILES = {
    "lines.jsonl": lambda path: lines(path, *PAIRS),
    "array.json": lambda path: path.write_text(json.dumps(PAIRS)),
    "array-indented.json": lambda path: path.write_text(json.dumps(PAIRS, indent=2), encoding="utf-8-sig"),
    "objects-indented.json": lambda path: path.write_text("\n".join(json.dumps(each, indent=2) for each in PAIRS)),
    "table.csv": write_csv,
    "table-of-excel.csv": lambda path: write_csv(path, ";", "\ufeff"),
    "table.tsv": lambda path: write_csv(path, "\t"),
    "table.txt": write_csv,
    "rows.parquet": lambda path: Dataset.from_list(PAIRS).to_parquet(path),
    "folder": lambda path: Dataset.from_list(PAIRS).save_to_disk(path),
    "folder-of-one-split": lambda path: DatasetDict(train=Dataset.from_list(PAIRS)).save_to_disk(path),
    "rows.jsonl.gz": write_packed(gzip.open),
    "rows.bz2": write_packed(bz2.open),
    "rows.xz": write_packed(lzma.open),
    "rows.zip": write_zip,
}


@pytest.mark.parametrize("name", FILES)
def test_every_text_of_a_file_is_kept_as_it_is(tmp_path, name):
    path = tmp_path / name
    FILES[name](path)
    assert converted(path)[0] == CHATS
    with pytest.raises(BadInput, match="make convert DATA="):
        read_chats(path)


def test_an_archive_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as file:
        for name in ("a.jsonl", "b.jsonl"):
            file.writestr(name, json.dumps(PAIRS[0]))
    with pytest.raises(BadInput, match="2 files"):
        converted(tmp_path / "mine.zip")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_unpacks_to_far_more_is_refused(tmp_path, pack):
    (tmp_path / "mine").write_bytes(pack(bytes(150_000_000)))
    with pytest.raises(BadInput, match="unpacks to more than"):
        converted(tmp_path / "mine")


def test_an_archive_with_another_size_than_announced_is_refused(tmp_path):
    path = tmp_path / "mine.zip"
    write_zip(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 24] -= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be unpacked"):
        converted(path)


def test_a_file_of_a_saved_dataset_is_read(tmp_path):
    Dataset.from_list(PAIRS).save_to_disk(tmp_path / "folder")
    (path,) = (tmp_path / "folder").glob("*.arrow")
    assert converted(path)[0] == CHATS


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"prompt,completion\na\n", r"line 2: .* not as many cells"),
        ("a.csv", b"prompt,completion\na,b,c\n", r"line 2: .* not as many cells"),
        ("a.csv", b"prompt,prompt\na,b\n", "two columns"),
        ("a.csv", b'prompt,completion\na,"b', r"line \d: not valid CSV"),
        ("a.csv", "prompt,completion\nä,b\n".encode("latin-1"), "not in UTF-8"),
        ("a.json", b'[{"prompt": "a"},\n', r"line 2: not valid JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.gz", b"\x1f\x8b\x08\0\0", "cannot be unpacked"),
        ("a.parquet", b"PAR1" * 4, "cannot be read"),
        ("a.jsonl", b"", "no rows to write"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=words) as error:
        converted(tmp_path / name)
    assert "\n" not in str(error.value)


def test_of_several_splits_one_has_to_be_named(tmp_path):
    one = Dataset.from_list(PAIRS)
    DatasetDict(train=one, test=one).save_to_disk(tmp_path / "folder")
    with pytest.raises(BadInput, match="train, test"):
        converted(tmp_path / "folder")
    assert converted(tmp_path / "folder/test")[0] == CHATS
