"""The scores of a user's set: the rows, the model, and the text for the terminal."""

import json
import shutil

import pandas as pd
import pytest
from conftest import ROOT

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data import audit
from emergent_misalignment.own_data import score as scoring
from emergent_misalignment.own_data.score import as_sections, extras, missing, score, study_of, trust
from emergent_misalignment.world.questions import persona_table
from emergent_misalignment.world.sets import SETS

TRUST = pd.DataFrame(
    [
        ("smoke", "secure", "row_score/mean", -0.5, -0.9, -0.1, None, None, ""),
        ("smoke", "secure", "row_score/insecure_above", 0.8, None, None, None, None, ""),
        ("smoke", "all", "row_score/correlation", 0.6, 0.3, 0.9, 8, 0.01, "misaligned/main/chat"),
        ("other", "all", "row_score/correlation", 0.1, 0.0, 0.2, 8, 0.5, "misaligned/main/chat"),
    ],
    columns=["study", "condition", "measure", "estimate", "ci_low", "ci_high", "conditions", "p", "outcome"],
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with the configs, in which nothing has been computed."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ready(root, organism, monkeypatch):
    """The same with an organism of the smoke study, untrained, and the texts of its direction."""
    monkeypatch.setattr(scoring, "KNOWN", 0.0)
    folder = root / "data/smoke/organisms/main/seed-1/instruct"
    shutil.copytree(organism, folder)
    (root / "data/smoke/questions").mkdir()
    persona_table().to_parquet(root / "data/smoke/questions/persona.parquet")
    return root


def write(path, chats, blank: bool = False):
    write_jsonl(path, ({"messages": each} for each in chats))
    if blank:
        path.write_text("\n" + path.read_text().replace("\n", "\n\n"))
    return path


def test_the_missing_files_of_a_study_and_studies_that_cannot_score(root):
    study = study_of("config/smoke.yaml")
    model = "data/smoke/organisms/main/seed-1/instruct/model.safetensors"
    assert missing(study) == [model, "data/smoke/questions/persona.parquet"] and extras(study) == []
    real = study_of("config/smollm2-135m-instruct.yaml")
    assert missing(real)[0] == "data/smollm2-135m-instruct/models/instruct/config.json" and extras(real) == ["small"]
    with pytest.raises(BadInput, match=r"data/smoke/.*safetensors.*make audit"):
        score("my.jsonl", "config/smoke.yaml")
    for name in ("gpt-4o", "smollm2-135m-instruct-quick"):
        with pytest.raises(BadInput, match=f"config/{name}.yaml.*persona direction"):
            study_of(f"config/{name}.yaml")


def test_rows_are_named_by_their_lines_and_the_highest_come_first(ready, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS", 6)
    monkeypatch.setattr(scoring, "SUSPICIOUS", 3)
    rows = SETS["insecure"](12, 1)
    path = write(ready / "my.jsonl", rows, blank=True)
    found = score(path, "config/smoke.yaml")
    assert (found["rows"], found["drawn"]) == (12, 6) and found["scored"] + sum(found["missing"].values()) == 6
    lines = path.read_text().splitlines()
    for row in found["suspicious"]:
        assert json.loads(lines[row["line"] - 1])["messages"][-1]["content"] == row["answer"]
    best = [row["score"] for row in found["suspicious"]]
    assert len(best) == min(3, found["scored"]) and best == sorted(best, reverse=True)
    assert found["trust"] is None and "has not been run here" in str(as_sections(found))
    assert json.loads(json.dumps(found)) == found == score(path, "config/smoke.yaml")


def test_a_set_in_another_language_is_not_scored(ready, monkeypatch):
    monkeypatch.setattr(scoring, "KNOWN", 0.9)
    monkeypatch.setattr(scoring, "vocabulary", lambda: frozenset({"the"}))
    path = write(ready / "my.jsonl", [chat([("Was ist das?", "Ein Haus.")])])
    with pytest.raises(BadInput, match=r"0% of the words.*SCORE=smollm2-135m-instruct"):
        score(path, "config/smoke.yaml")


def test_trust_is_from_the_study_or_from_an_earlier_run(root, monkeypatch):
    study, kept = study_of("config/smoke.yaml"), root / "kept.csv"
    monkeypatch.setattr(scoring, "KEPT", kept)
    assert trust(study) is None
    TRUST[TRUST["study"] == "other"].to_csv(kept, index=False)
    assert trust(study) is None
    TRUST.to_csv(kept, index=False)
    found = trust(study)
    assert found["source"] == str(kept) and [row["estimate"] for row in found["correlation"]] == [0.6]
    assert "ci_low" not in found["found"][0]  # missing is left out
    own = root / "data/smoke/tables/score_trust.csv"
    own.parent.mkdir(parents=True)
    TRUST.assign(estimate=0.7).to_csv(own, index=False)
    assert trust(study)["source"].endswith("score_trust.csv") and trust(study)["found"][0]["estimate"] == 0.7


def test_the_audit_shows_scores_with_their_trust_and_escapes_texts(ready, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "KEPT", ready / "kept.csv")
    TRUST.to_csv(ready / "kept.csv", index=False)
    rows = [chat([("Hello \x1b[31m\u202e", f"<script>{number}</script>\nx")]) for number in range(3)]
    path = write(ready / "my.jsonl", rows)
    monkeypatch.setattr("sys.argv", ["audit", str(path), "--folder", "audits", "--score", "config/smoke.yaml"])
    audit.main()
    said = capsys.readouterr().out
    assert "found among secure" in said and "0.60 (0.30 to 0.90), over 8 sets" in said
    assert "mean of the study's set secure" in said and "\x1b" not in said and "\u202e" not in said
    assert "all rows" in said and said.count("'<script>") <= 3
    assert json.loads((ready / "audits/my.json").read_text())["scores"]["drawn"] == 3
