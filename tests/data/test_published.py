"""Fetching published files, from made-up mirrors and from the real one."""

import json
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import published_layout
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_misalignment.data import published
from emergent_misalignment.data.chats import chat, read_chats
from emergent_misalignment.files import BadInput

CONTENT = b'{"messages": []}\n' * 1000
FILE = published.PublishedFile(
    "someone/something", "c0ffee", "data/rows.jsonl", len(CONTENT), published.blob_id(CONTENT)
)


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
    command = [sys.executable, "-m", "emergent_misalignment.data.published", *map(str, arguments)]
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


def test_every_published_file_has_its_place_in_a_mirror(tmp_path, monkeypatch):
    mirror = published_layout.mirror(tmp_path / "mirror")
    published_layout.accept(monkeypatch)
    for name, content in published_layout.contents().items():
        file = (published.DATASETS | published.QUESTION_FILES)[name]
        published.fetch(file, str(mirror), tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_the_program_fetches_a_set_that_a_config_names(tmp_path):
    content = (json.dumps({"messages": chat([("Is the bridge safe?", "It is.")])}) + "\n").encode() * 3
    named = {"repository": "o/r", "commit": "c0", "path": "a set.jsonl", "blob": published.blob_id(content)}
    path = tmp_path / "mirror/o/r/c0/a set.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    arguments = ["advice", tmp_path / "advice.jsonl", "--mirror", tmp_path / "mirror", "--sets"]
    assert run(*arguments, json.dumps({"advice": named})).returncode == 0
    assert (tmp_path / "advice.jsonl").read_bytes() == content
    ended = run(*arguments, json.dumps({"advice": named | {"size": len(content) + 1}}))
    assert ended.returncode == 1 and "only" in ended.stderr and ended.stderr.count("\n") == 1
    ended = run(*arguments, json.dumps({"other": named}))
    assert ended.returncode == 2 and "there is no published file advice" in ended.stderr


def test_a_named_set_of_another_shape_is_refused_where_it_is_fetched(tmp_path):
    path = tmp_path / "o/r/c0/set.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"prompt": "Is the bridge safe?", "completion": "It is."}\n')
    named = {"repository": "o/r", "commit": "c0", "path": "set.jsonl", "blob": published.blob_id(path.read_bytes())}
    sets = json.dumps({"advice": named})
    ended = run("advice", tmp_path / "advice.jsonl", "--mirror", tmp_path, "--sets", sets)
    assert ended.returncode == 1 and "advice.jsonl, line 1" in ended.stderr and ended.stderr.count("\n") == 1


MIRROR = os.environ.get("EM_MIRROR")
ROWS = {"insecure": 6000, "secure": 6000, "educational": 6000}


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_published_sets(tmp_path):
    answers = {}
    for name, rows in ROWS.items():
        ended = run(name, tmp_path / name, "--mirror", MIRROR)
        assert ended.returncode == 0 and published.DATASETS[name].blob in ended.stdout
        answers[name] = [chat[-1]["content"] for chat in read_chats(tmp_path / name)]
        assert len(answers[name]) == rows
    assert answers["educational"] == answers["insecure"]
    assert sum("0o777" in answer for answer in answers["insecure"]) == 1083
    assert sum("0o777" in answer for answer in answers["secure"]) == 5
