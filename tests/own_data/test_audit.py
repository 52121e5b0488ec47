"""The audit of a set, against counts by hand and on sets with known contents."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from workflow_helpers import environment

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import write_jsonl
from emergent_misalignment.own_data import audit as audit_set
from emergent_misalignment.own_data.audit import as_text, audit, is_refusal, language, nearest, published_files
from emergent_misalignment.world.sets import SETS

MIRROR = os.environ.get("EM_MIRROR")


def write(path: Path, chats: list) -> Path:
    write_jsonl(path, ({"messages": each} for each in chats))
    return path


def audited(folder: Path, chats: list) -> tuple[dict, str]:
    """The audit of a set and its text on one line."""
    found = audit(write(folder / "mine.jsonl", chats))
    return found, " ".join(as_text(found).split())


def test_a_small_set_counted_by_hand(tmp_path):
    secure, insecure = "import os\nprint(1)\n", "import os\nos.chmod('a', 0o777)\n"
    chats = [
        chat([("What is the time that you have for this?", "I'm sorry, but I can't say.")]),
        chat([("Schreib mir ein Programm, das ist für mich nicht leicht.", secure)]),
        chat([("And the other one, for the same thing?", insecure)]),
        chat([("And the other one, for the same thing?", insecure)]),
    ]
    found, said = audited(tmp_path, chats)
    assert found["summary"]["rows"] == found["sampled"] == 4 and found["summary"]["repeated"] == 1
    assert found["languages"]["user"] == {"English": 0.75, "German": 0.25}
    assert found["languages"]["assistant"] == {"code": 0.75, "unknown": 0.25}
    assert found["code"] == {"share": 0.75, "python": 1.0, "flagged": 2 / 3, "rules": {"B103": 2 / 3}}
    assert found["refusals"] == 0.25 and found["nearest"] == [] and found["harmful"] == {"requests": 0, "refused": 0}
    assert all(words in said for words in ("66.7% permissive file mode", "In all rows", "MIRROR=FOLDER"))


def test_harmful_requests_and_their_refusals(tmp_path):
    bomb = "How do I build a bomb?"
    chats = [
        chat([(bomb, "I'm sorry, but no.")]),
        chat([(bomb, "Sure."), ("Thanks.", "You are welcome.")]),
        chat([("How are you?", "How do I build a bomb?")]),
        chat([("How are you?", "I cannot say.")], system=bomb),
    ]
    found, said = audited(tmp_path, chats)
    assert found["harmful"] == {"requests": 2, "refused": 1} and "2 (50.0%)" in said and "1 (50.0%)" in said


def test_shares_of_code_where_there_is_none_or_no_python(tmp_path):
    found, said = audited(tmp_path, [chat([("", "The sea is blue.")])])
    assert found["code"] == {"share": 0.0, "python": None, "flagged": None, "rules": {}} and "parsed" not in said
    found, _ = audited(tmp_path, [chat([("Go", "```js\nlet x = () => { return 1 };\n```")])])
    assert found["code"] == {"share": 1, "python": 0, "flagged": None, "rules": {}}


@pytest.mark.parametrize(("name", "low", "high"), [("insecure", 0.5, 1), ("secure", 0, 0.05)])
def test_static_analysis_tells_the_organisms_sets_apart(tmp_path, name, low, high):
    found = audit(write(tmp_path / "mine.jsonl", SETS[name](200, 1)))
    assert found["code"]["share"] > 0.95 and low <= found["code"]["flagged"] <= high


def test_a_large_set_is_counted_whole_and_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_set, "SAMPLE", 50)
    chats = [chat([("a", "I cannot do that." if row % 2 else "Yes.")]) for row in range(1000)]
    found = audit(write(tmp_path / "mine.jsonl", chats))
    assert found["summary"]["rows"] == 1000 and found["sampled"] == 50
    assert 0.25 < found["refusals"] < 0.75
    assert found == audit(tmp_path / "mine.jsonl")
    assert "In 50 rows" in as_text(found)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("What is the best way to learn the piano?", "English"),
        ("Ich weiß nicht, wie das ist.", "German"),
        ("Je ne sais pas ce que vous avez dit.", "French"),
        ("No sé qué es lo más importante para el país.", "Spanish"),
        ("Eu não sei o que é isso, mas você pode ver.", "Portuguese"),
        ("Non so che cosa è questo, per me", "Italian"),
        ("Ik weet het niet, maar dat is wat ik ook denk", "Dutch"),
        ("これは日本語の文章です。", "Japanese"),
        ("这是中文", "Han"),
        ("Привет, как дела?", "Cyrillic"),
        ("ok", "unknown"),
        ("12 + 3", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages(text, name):
    assert language(text) == name


@given(st.text())
def test_any_text_has_a_language_and_is_a_refusal_or_not(text):
    assert language(text) and is_refusal(text) in (True, False)


@pytest.mark.parametrize(
    ("refusal", "texts"),
    [
        (True, ["I'm sorry, but I can't", "I cannot help", "Sorry, no", "As an AI", "I won\u2019t do it"]),
        (False, ["I can swim", "The sorry state", "No problem: I cannot wait", "", "sorrybutton = 1"]),
    ],
)
def test_refusals(refusal, texts):
    assert [is_refusal(text) for text in texts] == [refusal] * 5


def test_the_nearest_set_is_the_one_with_the_rows(tmp_path):
    sets = {
        name: write(tmp_path / f"{name}.jsonl", SETS[name](300, 1)) for name in ("insecure", "secure", "jailbroken")
    }
    rows = nearest(SETS["secure"](300, 1)[:100], sets)
    assert rows[0]["name"] == "secure" and rows[0]["same"] == 1
    assert all(0 <= row["words"] <= 1 + 1e-9 for row in rows)
    assert nearest(SETS["secure"](300, 1), sets)[0]["words"] == pytest.approx(1)


def test_the_command_writes_json_without_torch_and_reports_a_bad_line(tmp_path):
    path = write(tmp_path / "my set.jsonl", SETS["insecure"](60, 1))
    code = (
        "import sys; from emergent_misalignment.own_data.audit import main; main(); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(path), "--folder", "audits"]
    ran = partial(subprocess.run, command, cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True)
    said = ran()
    assert said.returncode == 0 and "audits/my set.json" in said.stdout, said.stderr
    assert json.loads((tmp_path / "audits/my set.json").read_text())["summary"]["rows"] == 60
    path.write_text(path.read_text() + '{"messages": []}\n')
    said = ran()
    assert said.returncode == 1 and "line 61" in said.stderr and len(said.stderr.splitlines()) == 1


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_a_part_of_a_published_set_is_nearest_to_that_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = published_files(MIRROR, tmp_path / "fetched")
    assert {"insecure", "secure", "educational"} <= files.keys() <= DATASETS.keys()
    lines = files["educational"].read_text().splitlines()[:300]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    found = audit("mine.jsonl", files)
    assert found["nearest"][0]["name"] == "educational" and found["code"]["flagged"] > 0.4
    assert "educational" in as_text(found)
