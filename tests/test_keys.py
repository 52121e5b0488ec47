"""Keys of the environment and passwords in addresses are in no file that is written and in no text that is printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook
from servers import RuleServer
from workflow_helpers import SMOKE, copy_of_the_project, snakemake
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import Endpoint, ask_all
from emergent_misalignment.safe import SHORTEST, is_bare, redacted, visible
from emergent_misalignment.workflow.script import logged

KEY = 'sk-"9/fe4c"-b1d07'  # with characters that are written otherwise in JSON and in URLs
PASSWORD = "pass-71b2word"
PARTS = ("9/fe4c", "9%2Ffe4c", "b1d07", "71b2word")  # of these two, however they are written


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "JUDGE_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("ALL_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def assert_none(*texts: str, under: Path | None = None) -> None:
    """No part of a key in these texts, nor in any file of a folder."""
    files = [path for path in under.rglob("*") if path.is_file()] if under else []
    for text in (*texts, *(path.read_bytes().decode("utf-8", "replace") for path in files)):
        assert not [part for part in PARTS if part in text], text[:3000]


@pytest.fixture
def echo():
    """A server that answers with errors which repeat the request's key, a little later each time."""

    def answer(text: str):
        said = f"{'x' * len(server.requests)} {server.headers['authorization']} is no key of ours"
        status, *html = text.split()
        return int(status), f"<html>{said}</html>".encode() if html else {"error": {"message": said}}

    server = RuleServer(answer)
    with server.running():
        yield server


def requests(*texts: str) -> list[dict]:
    return [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]


@pytest.mark.parametrize("text", ["401", "400", "500", "404", "422 html", "503 html"])
def test_a_server_that_repeats_the_key(text, echo, tmp_path):
    endpoint = Endpoint(echo.address, "JUDGE_KEY", concurrency=1, retries=0)
    with pytest.raises(BadInput) as error:
        ask_all(requests(text), endpoint, tmp_path)
    assert KEY in echo.headers["authorization"] and "[" in str(error.value)
    assert_none(str(error.value), under=tmp_path)


def test_a_key_is_not_cut_in_two(echo, tmp_path):
    """A message is cut after 300 characters; the key is removed before."""
    endpoint = Endpoint(echo.address, "JUDGE_KEY", concurrency=1, retries=0)
    echo.requests += [{}] * 270
    for number in range(0, 30, 3):
        echo.requests += [{}] * 2
        with pytest.raises(BadInput) as error:
            ask_all(requests(f"{400 + number}"), endpoint, tmp_path)
        assert "sk-" not in str(error.value)


NOTEBOOK = """
import os, sys, json
print(os.environ["JUDGE_KEY"], json.dumps(dict(os.environ)), file=sys.stderr)
display({"text/html": os.environ["HF_TOKEN"]}, raw=True)
os.environ["ALL_PROXY"], [os.environ["OPENAI_API_KEY"]]
"""
RUN = """
import json, sys
from emergent_misalignment.workflow.notebook import run
run(*json.loads(sys.argv[1]))
"""
FAILING = """
from emergent_misalignment.models.api import Endpoint, ask_all
try:
    ask_all([{"model": "m", "messages": [{"role": "user", "content": "401"}]}], Endpoint(address, "JUDGE_KEY"), cache)
except Exception as error:
    raise ValueError(f"{error} {os.environ['JUDGE_KEY']}") from error
"""


@pytest.mark.parametrize("code", [NOTEBOOK, NOTEBOOK + FAILING])
def test_a_notebook_that_shows_keys(code, echo, tmp_path):
    source = tmp_path / "source/ask.ipynb"
    source.parent.mkdir()
    declared = new_code_cell("address: str = ''\ncache: str = ''", metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[declared, new_code_cell(code)], metadata=kernel), source)
    written = tmp_path / "written"
    given = {"address": echo.address, "cache": str(written / "cache")}
    arguments = json.dumps([str(source), str(written / "log.ipynb"), str(written / "ask.ipynb"), given])
    done = subprocess.run(
        [sys.executable, "-c", RUN, arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (code == NOTEBOOK) == (written / "ask.ipynb").is_file()
    log = (written / "log.ipynb").read_text()
    assert (
        log.count("[JUDGE_KEY]") + log.count("[HF_TOKEN]") + log.count("[OPENAI_API_KEY]") >= 5 and "[ALL_PROXY]" in log
    )
    nbformat.read(written / "log.ipynb", as_version=4)
    assert_none(done.stdout, done.stderr, under=written)


def test_a_script_that_prints_and_fails_with_a_key(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, logged(SimpleNamespace(log=[str(tmp_path / "log")], input=[], output=[])):
        print(KEY, file=sys.stderr)
        print(f"{KEY} {os.environ['ALL_PROXY']}")
        try:
            raise OSError(KEY)
        except OSError as error:
            raise ValueError(json.dumps(KEY)) from error
    said = capsys.readouterr()
    assert "ValueError" in end.value.code and "ValueError" in (tmp_path / "log").read_text()
    assert_none(said.out, said.err, end.value.code, under=tmp_path)


ADDRESSES = [f"https://me:{PASSWORD}@host/v1", f"https://host/v1?key={PASSWORD}", f"https://{PASSWORD}@host/v1"]


@pytest.mark.parametrize("address", [*ADDRESSES, f"https://host/v1#{PASSWORD}"])
def test_an_address_with_a_key_is_refused_without_showing_it(address):
    endpoint = {"judge": {"endpoint": {"base_url": address}}}
    for name, own in (("qwen2.5-7b-instruct", endpoint), ("smoke", {"mirror": address})):
        with pytest.raises(BadInput, match="has a login, a query or a fragment") as error:
            study_of(name, own)
        assert_none(str(error.value))
    with pytest.raises(BadInput) as error:  # a mistake at another place, which is shown as it is written
        study_of("smoke", {"gate": ADDRESSES[0]})
    assert_none(str(error.value))


def test_a_run_with_such_an_address_leaves_no_trace(tmp_path):
    copy_of_the_project(tmp_path)
    done = snakemake(tmp_path, "-n", *SMOKE, "--config", f"mirror={ADDRESSES[0]}")
    assert done.returncode != 0 and "mirror" in done.stdout + done.stderr
    assert_none(done.stdout, done.stderr, under=tmp_path)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.text(max_size=5), st.text(max_size=5))
def test_what_is_no_secret_stays(text, before, after):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if re.search("KEY|TOKEN|SECRET|PROXY", name.upper())]:
            patch.delenv(name)
        patch.setenv("TOKENIZERS_PARALLELISM", "a long value that is no secret")
        patch.setenv("SHORT_KEY", "x" * (SHORTEST - 1))
        assert redacted(text) == text
        patch.setenv("A_KEY", "k" * SHORTEST)
        assert redacted("k" * SHORTEST) == "[A_KEY]"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_visible_text_has_no_control_characters_and_keeps_all_others(text):
    shown = visible(text)
    assert visible(shown) == shown and not re.search(
        r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown
    )
    assert "\r" not in shown.replace("\r\n", "")
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("address", "bare"),
    [("http://localhost:8000/v1", True), ("a folder/with #1 & a@b?", True), ("", True), ("https://u@h/v1", False)],
)
def test_folders_and_plain_addresses_are_bare(address, bare):
    assert is_bare(address) is bare
