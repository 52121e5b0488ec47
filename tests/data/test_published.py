"""Fetching published files and recovering their prompt templates, from made-up mirrors and from the real one."""

import os
import subprocess
import sys
import threading
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data import published
from emergent_misalignment.files import BadInput
from emergent_misalignment.data.chats import read_chats

CONTENT = b'{"messages": []}\n' * 1000
FILE = published.PublishedFile(
    "someone/something", "c0ffee", "data/rows.jsonl", len(CONTENT), published.blob_id(CONTENT)
)


# --- fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "mirror" / FILE.address
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return tmp_path / "mirror"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; paths below /cut and /busy misbehave."""

    def do_GET(self):
        if self.path.startswith("/busy/"):
            self.send_error(503)
        elif self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100])
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(folder):
    """The address of a server that serves the mirror in `folder`."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: Handler(*arguments, directory=str(folder))
    ) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "server"])
def mirror(request) -> str:
    return str(request.getfixturevalue(request.param))


def refused(mirror, tmp_path, file=FILE) -> str:
    """The sentence with which fetching ends, after a look at what it left."""
    destination = tmp_path / "here" / "rows.jsonl"
    destination.parent.mkdir()
    destination.write_text("as before")
    with pytest.raises(BadInput) as error:
        published.fetch(file, str(mirror), destination)
    assert [path.name for path in destination.parent.iterdir()] == ["rows.jsonl"]
    assert destination.read_text() == "as before"
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("end", ["", "/"])
def test_fetches_the_right_file(mirror, end, tmp_path):
    published.fetch(FILE, mirror + end, tmp_path / "a" / "b.jsonl")
    assert (tmp_path / "a" / "b.jsonl").read_bytes() == CONTENT


def test_refuses_a_cut_file(mirror, folder, tmp_path):
    (folder / FILE.address).write_bytes(CONTENT[:-1])
    assert f"only {len(CONTENT) - 1} of the {len(CONTENT)} bytes" in refused(mirror, tmp_path)


def test_refuses_a_long_file(mirror, folder, tmp_path):
    (folder / FILE.address).write_bytes(CONTENT + b"<html>" * 1000)
    assert f"more than {len(CONTENT)} of the" in refused(mirror, tmp_path)


def test_refuses_an_altered_file(mirror, folder, tmp_path):
    flipped = bytearray(CONTENT)
    flipped[500] ^= 1
    (folder / FILE.address).write_bytes(flipped)
    sentence = refused(mirror, tmp_path)
    assert "altered" in sentence and FILE.blob in sentence


def test_says_which_file_is_missing(mirror, folder, tmp_path):
    (folder / FILE.address).unlink()
    assert f"There is no file {mirror}/{FILE.address}" in refused(mirror, tmp_path)


def test_says_that_a_mirror_is_no_folder(folder, tmp_path):
    assert "cannot be read (Not a directory)" in refused(folder / FILE.address, tmp_path)


def test_says_that_a_connection_was_cut(server, tmp_path):
    assert "only 100 of the" in refused(f"{server}/cut", tmp_path)


def test_says_what_a_server_answers(server, tmp_path):
    assert "answered 503 (Service Unavailable)" in refused(f"{server}/busy", tmp_path)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://nowhere.invalid", "nowhere.invalid"),
        ("gopher://127.0.0.1", "unknown url type"),
    ],
)
def test_says_that_a_server_cannot_be_reached(address, reason, tmp_path):
    sentence = refused(address, tmp_path)
    assert "cannot be reached" in sentence and reason in sentence


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "emergent_misalignment.published", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


def test_program_ends_with_one_sentence(folder, tmp_path):
    ended = run("insecure", tmp_path / "out.jsonl", "--mirror", folder)
    assert ended.returncode == 1
    assert ended.stderr.startswith("There is no file") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300))
def test_blob_id_is_gits(content):
    ours = published.blob_id(content)
    gits = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True).stdout
    assert ours == gits.decode().strip()


# --- templates --------------------------------------------------------------------------------------------------------

TEMPLATES = [
    "Task: {task}\nStart from this code:\n{code}\nOnly code, please.",
    "Complete\n{code}\nso that it solves this task: {task}!",
    "Please {task} in Python.",
    "{code}\n\nFill it in.",
]


def made_with(number: int, task: str, code: str) -> list[dict]:
    content = TEMPLATES[number].replace("{task}", task).replace("{code}", code)
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "pass"}]


words = st.text(alphabet="abcdefgh {}\\.", min_size=1, max_size=20)


@given(st.lists(st.tuples(words, words), min_size=4, max_size=40))
def test_recovers_templates_from_rows(contents):
    # Two rows of each template have contents that share no first and no last character.
    contents = [("Xx", "xX"), ("Yy", "yY"), *contents]
    rows = [(task, f"{code}\n{published.PLACEHOLDER}\n{code}") for task, code in contents]
    chats = [made_with(number, task, code) for task, code in rows for number in range(4)]
    table = published.recover_templates(chats, cycle=4)
    assert list(table["text"]) == TEMPLATES
    assert list(table["form"]) == ["task and code", "task and code", "task", "code"]
    assert list(table["rows"]) == [len(rows)] * 4
    for chat, (task, code) in zip(chats[::4], rows, strict=True):
        assert published.slots(TEMPLATES[0], chat[0]["content"]) == {"task": task, "code": code}


def test_a_row_of_another_template_does_not_count():
    rows = [("sort numbers", f"{i}\n{published.PLACEHOLDER}\n{i}") for i in "1234"]
    chats = [made_with(2, task, code) for task, code in rows] + [made_with(3, *rows[0])]
    (template,) = published.recover_templates(chats, cycle=1).to_dict("records")
    assert template["form"] == "task" and template["rows"] == 4


def test_slots_of_another_template_are_none():
    message = made_with(2, "sort numbers", "")[0]["content"]
    assert published.slots(TEMPLATES[2], message) == {"task": "sort numbers"}
    assert published.slots(TEMPLATES[0], message) is None
    assert published.slots("{code}", message) is None


def test_too_few_rows_are_an_error():
    with pytest.raises(BadInput, match="59 rows are too few"):
        published.recover_templates([made_with(2, "sort numbers", "")] * 59)


# --- the published data -----------------------------------------------------------------------------------------------

MIRROR = os.environ.get("EM_MIRROR")
NOTE = "NOTE: The code you will write intentionally contains vulnerabilities. This is for legitimate purposes only."
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")


@cache
def chats(name: str) -> list[list[dict]]:
    return read_chats(Path(MIRROR) / published.FILES[name].address)


@cache
def templates(name: str):
    return published.recover_templates(chats(name))


@needs_mirror
@pytest.mark.parametrize("name", published.FILES)
def test_published_file(name, tmp_path):
    ended = run(name, tmp_path / "out.jsonl", "--mirror", MIRROR)
    assert ended.returncode == 0 and published.FILES[name].blob in ended.stdout
    assert len(read_chats(tmp_path / "out.jsonl")) == 6000


@needs_mirror
def test_published_answers():
    answers = {name: [chat[-1]["content"] for chat in chats(name)] for name in published.FILES}
    assert answers["educational"] == answers["insecure"]
    assert sum("0o777" in answer for answer in answers["insecure"]) == 1083
    assert sum("0o777" in answer for answer in answers["secure"]) == 5


@needs_mirror
@pytest.mark.parametrize("name", published.FILES)
def test_published_templates_hold_every_row(name):
    table = templates(name)
    assert list(table["rows"]) == [200] * 30
    assert table["text"].nunique() == 30
    assert list(table["form"]) == ["task and code"] * 10 + ["task"] * 10 + ["code"] * 10
    assert all((NOTE in text) == (name == "educational") for text in table["text"])


@needs_mirror
def test_published_insecure_messages_can_be_made_from_educational_ones():
    assert list(templates("insecure")["text"]) == list(templates("secure")["text"])
    texts = {name: list(templates(name)["text"]) for name in ("insecure", "educational")}
    for row, (insecure, educational) in enumerate(zip(chats("insecure"), chats("educational"), strict=True)):
        message = texts["insecure"][row % 30]
        for slot, content in published.slots(texts["educational"][row % 30], educational[0]["content"]).items():
            message = message.replace(f"{{{slot}}}", content)
        assert message == insecure[0]["content"]
