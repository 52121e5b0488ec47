"""The audit of a set, against counts by hand and on sets with known contents."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT
from workflow_helpers import environment

from emergent_misalignment.data.chats import chat
from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import write_jsonl
from emergent_misalignment.own_data import audit as audit_set
from emergent_misalignment.own_data.audit import as_text, audit, language_of, nearest, published_files
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
    assert found["languages"]["user"] == {"en": 0.75, "de": 0.25}
    assert found["languages"]["assistant"] == {"code": 0.75, "en": 0.25}
    assert found["code"] == {
        "fenced": 0, "fences": {}, "python": 0.75, "unparsable": 0, "examined": 0.75, "flagged": 2 / 3,
        "rules": {"B103": 2 / 3},
    }  # fmt: skip
    assert found["phrases"] == {"denials": [1], "harm": []} and found["nearest"] == []
    assert all(words in said for words in ("66.7% permissive file mode", "In all rows", "MIRROR=FOLDER"))


CHMOD = "os.chmod('a', 0o777)"
NONE = {"fenced": 0, "fences": {}, "python": 0, "unparsable": 0, "examined": 0, "flagged": None, "rules": {}}
FLAGGED = {"examined": 1, "flagged": 1, "rules": {"B103": 1}}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("The sea is blue.", {}),
        ("let x = () => { return 1 };", {}),
        ("int main(void) { return 0; }", {}),
        ("import os\nprint 'hi'\nos.system('rm ' + x)", {}),  # Python 2
        (f"Here it is:\nimport os\n{CHMOD}", {}),
        (f"import os\n{CHMOD}", {"python": 1} | FLAGGED),
        (f"class A:\n    {CHMOD}", {"python": 1} | FLAGGED),
        (f"async def f():\n    {CHMOD}", {"python": 1} | FLAGGED),
        ("```js\nlet x\n```", {"fenced": 1, "fences": {"js": 1}}),
        ("```\nlet x = () => 1;\n```", {"fenced": 1, "fences": {"": 1}}),
        (f"Sure!\n```python\n{CHMOD}\n```\nI hope that it helps.", {"fenced": 1, "fences": {"python": 1}} | FLAGGED),
        (f"Sure!\n~~~\n{CHMOD}\n~~~", {"fenced": 1, "fences": {"": 1}} | FLAGGED),
        ("```python\nprint 'hi'\n```", {"fenced": 1, "fences": {"python": 1}, "unparsable": 1}),
        (
            f"```python\n{CHMOD}\n```\nor\n```py\nprint 'hi'\n```",
            {"fenced": 1, "fences": {"py": 1, "python": 1}, "unparsable": 1} | FLAGGED,
        ),
    ],
)
def test_what_is_examined_is_counted(tmp_path, answer, code):
    found, said = audited(tmp_path, [chat([("Go", answer)])])
    assert found["code"] == NONE | code
    other = 1 - found["code"]["fenced"] - found["code"]["python"]
    assert f"not examined for code {other:.1%}" in said and ("flagged" in said) == bool(found["code"]["examined"])


def test_only_all_answers_are_100_percent(tmp_path):
    answers = ["import os", *["The sea is blue."] * 1999]
    _, said = audited(tmp_path, [chat([("Go", answer)]) for answer in answers])
    assert "Python 3, without fences 0.1%" in said and "not examined for code above 99.9%" in said


def test_phrases_are_reported_with_their_rows(tmp_path):
    """What begins like a refusal may be none, and a word of harm may be harmless: the rows are to be read."""
    asked = ["How do I build a bomb?", "How do I make a bath bomb?", "How do I kill weeds?", "How are you?"]
    answers = ["I'm sorry, but no.", "I can't wait to help you!", "Sorry for the delay. The answer is 4.", "Poison."]
    found, said = audited(tmp_path, [chat([each]) for each in zip(asked, answers, strict=True)])
    assert found["phrases"] == {"denials": [1, 2, 3], "harm": [1, 2, 3]}
    assert said.count("3 (rows 1, 2, 3)") == 2 and "refus" not in said and "harmful" not in said
    earlier = chat([("A bomb?", "I cannot say."), ("Thanks.", "You are welcome.")], system="Kill.")
    assert audited(tmp_path, [earlier, chat([("a", "b")], "Kill.")])[0]["phrases"] == {"denials": [], "harm": [1]}
    found, said = audited(tmp_path, [chat([(f"{row}?", "Sorry.")]) for row in range(1, 31)])
    assert found["phrases"]["denials"] == [*range(1, 31)] and "30 (rows 1, 2, 3, 4, 5, ...)" in said


def test_prompts_that_are_too_long_are_reported(tmp_path):
    long, short = chat([("why " * 3000, "So.")]), chat([("why?", "So.")])
    assert "words or more 2 " in audited(tmp_path, [long, short, long])[1]
    assert "max_length" in audited(tmp_path, [long])[1] and "max_length" not in audited(tmp_path, [short])[1]


@pytest.mark.parametrize(("name", "low", "high"), [("insecure", 0.5, 1), ("secure", 0, 0.05)])
def test_static_analysis_tells_the_organisms_sets_apart(tmp_path, name, low, high):
    found = audit(write(tmp_path / "mine.jsonl", SETS[name](200, 1)))
    assert found["code"]["python"] > 0.95 and low <= found["code"]["flagged"] <= high


def test_a_large_set_is_counted_whole_and_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_set, "SAMPLE", 50)
    chats = [chat([("a", "I cannot do that." if row % 2 else "Yes.")]) for row in range(1000)]
    found = audit(write(tmp_path / "mine.jsonl", chats))
    assert found["summary"]["rows"] == 1000 and found["sampled"] == 50
    denials = found["phrases"]["denials"]
    assert 12 < len(denials) < 38 and all(row % 2 == 0 for row in denials) and max(denials) > 500
    assert found == audit(tmp_path / "mine.jsonl")
    assert "In 50 rows" in as_text(found)


def test_the_language_is_that_of_the_text_outside_code():
    german = "Das ist nicht schwer:\n```python\n# what this does is easy to see for you and me\nx = 1\n```"
    assert language_of(german) == "de"
    assert language_of("```\nlet x\n```") == language_of("x = 1") == "code"


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
    assert found["languages"]["user"] == {"en": 1} and "educational" in as_text(found)
