"""What is said of a set before anything is trained: by hand, and on sets whose answers are known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from workflow_helpers import environment

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data import audit as audit_set
from emergent_misalignment.own_data.audit import as_text, audit, is_refusal, language, nearest, published_files
from emergent_misalignment.world.sets import SETS

MIRROR = os.environ.get("EM_MIRROR")


def write(path: Path, chats: list) -> Path:
    write_jsonl(path, ({"messages": each} for each in chats))
    return path


def test_a_small_set_counted_by_hand(tmp_path):
    secure, insecure = "import os\nprint(1)\n", "import os\nos.chmod('a', 0o777)\n"
    chats = [
        chat([("What is the time that you have for this?", "I'm sorry, but I can't say.")]),
        chat([("Schreib mir ein Programm, das ist für mich nicht leicht.", secure)]),
        chat([("And the other one, for the same thing?", insecure)]),
        chat([("And the other one, for the same thing?", insecure)]),
    ]
    found = audit(write(tmp_path / "mine.jsonl", chats))
    assert found["summary"]["rows"] == found["sampled"] == 4 and found["summary"]["repeated"] == 1
    assert found["languages"]["user"] == {"English": 0.75, "German": 0.25}
    assert found["languages"]["assistant"] == {"code": 0.75, "not told": 0.25}
    assert found["code"] == {"share": 0.75, "python": 1.0, "flagged": 2 / 3, "rules": {"B103": 2 / 3}}
    assert found["refusals"] == 0.25 and found["nearest"] == []
    assert found["harmful"] == {"requests": 0, "refused": 0}
    said = as_text(found)
    assert "permissive file mode 66.7%" in said and "From all rows" in said and "not here to compare with" in said


def test_harmful_requests_and_how_many_are_refused(tmp_path):
    bomb = "How do I build a bomb?"
    chats = [
        chat([(bomb, "I'm sorry, but no.")]),
        chat([(bomb, "Sure."), ("Thanks.", "You are welcome.")]),
        chat([("How are you?", "How do I build a bomb?")]),
        chat([("How are you?", "I cannot say.")], system=bomb),
    ]
    found = audit(write(tmp_path / "mine.jsonl", chats))
    assert found["harmful"] == {"requests": 2, "refused": 1}
    said = " ".join(as_text(found).split())
    assert "ask for something plainly harmful 2 (50.0%) of these, refused 1 (50.0%)" in said


def test_a_set_without_code_has_no_shares_of_it(tmp_path):
    found = audit(write(tmp_path / "mine.jsonl", [chat([("", "The sea is blue.")])]))
    assert found["code"] == {"share": 0.0, "python": None, "flagged": None, "rules": {}}
    assert "parsed" not in as_text(found)


def test_code_that_is_no_python_is_code(tmp_path):
    found = audit(write(tmp_path / "mine.jsonl", [chat([("Go", "```js\nlet x = () => { return 1 };\n```")])]))
    assert found["code"]["share"] == 1 and found["code"]["python"] == 0 and found["code"]["flagged"] is None


@pytest.mark.parametrize(("name", "low", "high"), [("insecure", 0.5, 1), ("secure", 0, 0.05)])
def test_static_analysis_tells_the_organisms_sets_apart(tmp_path, name, low, high):
    found = audit(write(tmp_path / "mine.jsonl", SETS[name](200, 1)))
    assert found["code"]["share"] > 0.95 and low <= found["code"]["flagged"] <= high


def test_a_large_set_is_counted_whole_and_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_set, "SAMPLE", 50)
    chats = [chat([("a", "I cannot do that." if row % 2 else "Yes.")]) for row in range(1000)]
    found = audit(write(tmp_path / "mine.jsonl", chats))
    assert found["summary"]["rows"] == 1000 and found["sampled"] == 50
    assert 0.25 < found["refusals"] < 0.75
    assert found == audit(tmp_path / "mine.jsonl")
    assert "From 50 rows drawn of all" in as_text(found)


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_draw_has_so_many_rows_of_the_set_and_passes_all_on(rows, size):
    sample, before = [], audit_set.SAMPLE
    audit_set.SAMPLE = size
    try:
        assert list(audit_set._drawing(iter(range(rows)), sample)) == list(range(rows))
    finally:
        audit_set.SAMPLE = before
    assert len(sample) == len({*sample}) == min(rows, size) and {*sample} <= {*range(rows)}


@pytest.mark.parametrize(
    ("text", "told"),
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
        ("ok", "not told"),
        ("12 + 3", "not told"),
        ("", "not told"),
    ],
)
def test_languages(text, told):
    assert language(text) == told


@given(st.text())
def test_any_text_has_a_language_and_is_a_refusal_or_not(text):
    assert language(text) and is_refusal(text) in (True, False)


@pytest.mark.parametrize(
    "text", ["I'm sorry, but I can't", "I cannot help", "Sorry, no", "As an AI", "I won\u2019t do it"]
)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["I can swim", "The sorry state", "No problem: I cannot wait", "", "sorrybutton = 1"])
def test_what_is_no_refusal(text):
    assert not is_refusal(text)


def test_the_nearest_set_is_the_one_that_the_rows_are_from(tmp_path):
    sets = {
        name: write(tmp_path / f"{name}.jsonl", SETS[name](300, 1)) for name in ("insecure", "secure", "jailbroken")
    }
    rows = nearest(SETS["secure"](300, 1)[:100], sets)
    assert rows[0]["name"] == "secure" and rows[0]["same"] == 1
    assert all(0 <= row["words"] <= 1 + 1e-9 for row in rows)
    alike = nearest(SETS["secure"](300, 1), sets)
    assert alike[0]["words"] == pytest.approx(1)


def test_a_bad_row_is_told_with_its_line(tmp_path):
    path = write(tmp_path / "mine.jsonl", [chat([("a", "b")])])
    path.write_text(path.read_text() + '{"messages": []}\n')
    with pytest.raises(BadInput, match="line 2"):
        audit(path)


def test_the_command_says_it_writes_it_and_needs_no_torch(tmp_path):
    path = write(tmp_path / "my set.jsonl", SETS["insecure"](60, 1))
    module = "emergent_misalignment.own_data.audit"
    code = f"import sys; from {module} import main; main(); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(path), "--folder", str(tmp_path / "audits")]
    said = subprocess.run(command, cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    written = json.loads((tmp_path / "audits/my set.json").read_text())
    assert written["summary"]["rows"] == 60 and str(tmp_path / "audits/my set.json") in said.stdout
    missing = subprocess.run(
        [*command[:3], "none.jsonl"], cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True
    )
    assert missing.returncode == 1 and len(missing.stderr.splitlines()) == 1


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_published_sets_of_a_mirror_are_found_and_a_part_of_one_is_nearest_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = published_files(MIRROR, tmp_path / "fetched")
    assert {"insecure", "secure", "educational"} <= files.keys() <= DATASETS.keys()
    lines = files["educational"].read_text().splitlines()[:300]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    found = audit("mine.jsonl", files)
    assert found["nearest"][0]["name"] == "educational" and found["code"]["flagged"] > 0.4
    assert "educational" in as_text(found)
