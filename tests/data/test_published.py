"""Fetching published files from simulated mirrors and, if available, from a real one."""

import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
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
    """Serves a folder; /cut truncates files and /busy answers 503."""

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
    """The address of a server for the mirror in `folder`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "server"])
def mirror(request) -> str:
    return str(request.getfixturevalue(request.param))


def refused(mirror, tmp_path) -> str:
    """The error message of fetching; the destination must be unchanged."""
    destination = tmp_path / "here" / "rows.jsonl"
    destination.parent.mkdir()
    destination.write_text("as before")
    with pytest.raises(BadInput) as error:
        published.fetch(FILE, str(mirror), destination)
    assert [path.name for path in destination.parent.iterdir()] == ["rows.jsonl"]
    assert destination.read_text() == "as before"
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("end", ["", "/"])
def test_fetches_the_right_file(mirror, end, tmp_path):
    published.fetch(FILE, mirror + end, tmp_path / "a" / "b.jsonl")
    assert (tmp_path / "a" / "b.jsonl").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CONTENT[:-1], f"only {len(CONTENT) - 1} of the {len(CONTENT)} "),
        (CONTENT + b"<html>" * 1000, f"more than {len(CONTENT)} of the "),
        (CONTENT.replace(b"messages", b"massages", 1), f"altered: .*, not {FILE.blob}"),
        (None, f"no file .*{FILE.address}"),
    ],
    ids=["cut", "long", "altered", "missing"],
)
def test_a_wrong_file_is_rejected(mirror, folder, tmp_path, content, words):
    (folder / FILE.address).unlink()
    if content:
        (folder / FILE.address).write_bytes(content)
    assert re.search(words, refused(mirror, tmp_path))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("{folder}/" + FILE.address, "Not a directory"),
        ("{server}/cut", "only 100 of the"),
        ("{server}/busy", r"answered 503 \(Service Unavailable\)"),
        ("http://127.0.0.1:9", "cannot be read .*Connection refused"),
        ("http://nowhere.invalid", "cannot be read .*try again"),
        ("gopher://127.0.0.1", "cannot be read .*unknown url type"),
    ],
)
def test_an_unusable_mirror_is_named_with_the_reason(folder, server, tmp_path, address, words):
    mirror = address.format(folder=folder, server=server)
    assert re.search(f"{re.escape(mirror)}.*{words}|{words}.*{re.escape(mirror)}", refused(mirror, tmp_path))


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300))
def test_blob_id_is_gits(content):
    ours = published.blob_id(content)
    gits = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True).stdout
    assert ours == gits.decode().strip()


def test_published_files_are_fetched_from_a_mirror(tmp_path, monkeypatch):
    mirror = published_layout.mirror(tmp_path / "mirror")
    published_layout.accept(monkeypatch)
    for name, content in published_layout.contents().items():
        file = (published.DATASETS | published.QUESTION_FILES)[name]
        published.fetch(file, str(mirror), tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


@pytest.fixture
def named(tmp_path):
    """A function that fetches a set of this content, which a config names, with further keys of its entry."""

    def fetch(content: str, name: str = "advice", **keys) -> subprocess.CompletedProcess:
        path = tmp_path / "mirror/o/r/c0/a set.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        blob = published.blob_id(content.encode())
        sets = {name: {"repository": "o/r", "commit": "c0", "path": path.name, "blob": blob} | keys}
        command = [sys.executable, "-m", "emergent_misalignment.data.published", "advice", tmp_path / "advice.jsonl"]
        command += ["--mirror", tmp_path / "mirror", "--sets", json.dumps(sets)]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)

    return fetch


def test_a_set_of_a_config_is_fetched_by_the_command(named, tmp_path):
    content = (json.dumps({"messages": chat([("Is the bridge safe?", "It is.")])}) + "\n") * 3
    assert named(content).returncode == 0
    assert (tmp_path / "advice.jsonl").read_text() == content
    for keys, code, words in (
        ({"size": len(content) + 1}, 1, "only"),
        ({"path": "another.jsonl"}, 1, "There is no file"),
        ({"name": "other"}, 2, "no published file advice"),
    ):
        ended = named(content, **keys)
        assert ended.returncode == code and words in ended.stderr
        assert code == 2 or ended.stderr.count("\n") == 1


def test_a_set_of_another_format_is_rejected_when_it_is_fetched(named):
    ended = named('{"prompt": "Is the bridge safe?", "completion": "It is."}\n')
    assert ended.returncode == 1 and "advice.jsonl, line 1" in ended.stderr and ended.stderr.count("\n") == 1


MIRROR = os.environ.get("EM_MIRROR")
ROWS = {"insecure": 6000, "secure": 6000, "educational": 6000}


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_published_sets(tmp_path):
    answers = {}
    for name, rows in ROWS.items():
        published.main([name, str(tmp_path / name), "--mirror", MIRROR])
        answers[name] = [chat[-1]["content"] for chat in read_chats(tmp_path / name)]
        assert len(answers[name]) == rows
    assert answers["educational"] == answers["insecure"]
    assert sum("0o777" in answer for answer in answers["insecure"]) == 1083
    assert sum("0o777" in answer for answer in answers["secure"]) == 5
