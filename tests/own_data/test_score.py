"""The scores of a user's set: which rows, by which model, and what a person reads of them."""

import json
import shutil

import pandas as pd
import pytest
from conftest import ROOT

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.own_data import audit as audit_set
from emergent_misalignment.own_data import score as score_set
from emergent_misalignment.own_data.score import as_rows, extras, missing, plan_of, score, trust
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
    monkeypatch.setattr(score_set, "KNOWN", 0.0)
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


def test_what_scores_and_what_is_missing_of_it(root):
    plan = plan_of("config/smoke.yaml")
    model = "data/smoke/organisms/main/seed-1/instruct/model.safetensors"
    assert missing(plan) == [model, "data/smoke/questions/persona.parquet"] and extras(plan) == []
    real = plan_of("config/smollm2-135m-instruct.yaml")
    assert missing(real)[0] == "data/smollm2-135m-instruct/models/instruct/config.json" and extras(real) == ["small"]
    with pytest.raises(BadInput, match=r"There is no data/smoke/.*safetensors; `make audit"):
        score("my.jsonl", "config/smoke.yaml")


@pytest.mark.parametrize("name", ["gpt-4o", "smollm2-135m-instruct-quick"])
def test_a_study_without_a_persona_direction_scores_nothing(root, name):
    with pytest.raises(BadInput, match=f"The study of config/{name}.yaml has no persona direction"):
        plan_of(f"config/{name}.yaml")


def test_rows_are_named_by_their_lines_and_the_highest_come_first(ready, monkeypatch):
    monkeypatch.setattr(score_set, "ROWS", 6)
    monkeypatch.setattr(score_set, "SUSPICIOUS", 3)
    rows = SETS["insecure"](12, 1)
    path = write(ready / "my.jsonl", rows, blank=True)
    found = score(path, "config/smoke.yaml")
    assert (found["rows"], found["drawn"]) == (12, 6) and found["scored"] + sum(found["missing"].values()) == 6
    lines = path.read_text().splitlines()
    for row in found["suspicious"]:
        assert json.loads(lines[row["line"] - 1])["messages"][-1]["content"] == row["answer"]
    best = [row["score"] for row in found["suspicious"]]
    assert len(best) == min(3, found["scored"]) and best == sorted(best, reverse=True)
    assert found["trust"] is None and "has not been run here" in str(as_rows(found))
    assert json.loads(json.dumps(found)) == found == score(path, "config/smoke.yaml")


def test_a_set_that_the_organism_cannot_read_is_refused(ready, monkeypatch):
    monkeypatch.setattr(score_set, "KNOWN", 0.9)
    monkeypatch.setattr(score_set, "vocabulary", lambda: frozenset({"the"}))
    path = write(ready / "my.jsonl", [chat([("Was ist das?", "Ein Haus.")])])
    with pytest.raises(BadInput, match=r"The organism knows 0% of the words of .*SCORE=smollm2-135m-instruct"):
        score(path, "config/smoke.yaml")


def test_trust_is_the_studys_own_or_what_was_kept_of_it(root, monkeypatch):
    plan, kept = plan_of("config/smoke.yaml"), root / "kept.csv"
    monkeypatch.setattr(score_set, "KEPT", kept)
    assert trust(plan) is None
    TRUST[TRUST["study"] == "other"].to_csv(kept, index=False)
    assert trust(plan) is None
    TRUST.to_csv(kept, index=False)
    found = trust(plan)
    assert found["source"] == str(kept) and [row["estimate"] for row in found["correlation"]] == [0.6]
    assert "ci_low" not in found["found"][0]  # missing is left out
    own = root / "data/smoke/tables/score_trust.csv"
    own.parent.mkdir(parents=True)
    TRUST.assign(estimate=0.7).to_csv(own, index=False)
    assert trust(plan)["source"].endswith("score_trust.csv") and trust(plan)["found"][0]["estimate"] == 0.7


def test_the_audit_shows_scores_beside_their_trust_and_obeys_no_text(ready, monkeypatch, capsys):
    monkeypatch.setattr(score_set, "KEPT", ready / "kept.csv")
    TRUST.to_csv(ready / "kept.csv", index=False)
    rows = [chat([("Hello \x1b[31m\u202e", f"<script>{number}</script>\nx")]) for number in range(3)]
    path = write(ready / "my.jsonl", rows)
    monkeypatch.setattr("sys.argv", ["audit_set", str(path), "--folder", "audits", "--score", "config/smoke.yaml"])
    audit_set.main()
    said = capsys.readouterr().out
    assert "insecure rows found among secure (AUC; chance 0.5)" in said and "0.60 (0.30 to 0.90), over 8 sets" in said
    assert "mean of the study's set secure" in said and "\x1b" not in said and "\u202e" not in said
    assert "all rows" in said and said.count("'<script>") <= 3
    assert json.loads((ready / "audits/my.json").read_text())["scores"]["drawn"] == 3
