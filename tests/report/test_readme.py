"""Documents name what exists and state what the kept tables hold."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import ROOT
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.report import readme

FOLDERS = (".", "docs", "docs/results", "data", "figures", "paper", "config")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
DOCUMENTS.remove("paper/paper.md")  # a template
EXAMPLES = {
    "config/mine.yaml",
    "config/NAME.yaml",
    *(f"emergent_misalignment/{name}" for name in ("main", "alignment")),  # a task and a scorer of Inspect's
}
NAMED = r"(?<![\w/])(?:config|rules|docs|notebooks|profiles|tests|emergent_misalignment)/[\w./-]*\w|paper/\w+\.\w+"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_or_names_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [(ROOT / document).parent / link for link in re.findall(r"\]\(((?!https?:)[^)#]+)", text)]
    named = [ROOT / path for path in set(re.findall(NAMED, text)) - EXAMPLES]
    assert [str(path) for path in (*links, *named) if not path.exists()] == []
    anchors = re.findall(r"\]\(([^)#\s]*\.md)#([^)]+)\)", text)
    assert [anchor for link, anchor in anchors if anchor not in headings((ROOT / document).parent / link)] == []


def executed(path: Path, opening: str) -> None:
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(opening)]), path)


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)[1].split()
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.M)) <= set(targets)
    studies = {path.stem for path in ROOT.glob("config/*.yaml")} | {"mine"}
    assert set(re.findall(r"(?:STUDY|SCORE)=([a-z0-9.-]+)", text)) <= studies


@pytest.mark.parametrize("document", readme.DOCUMENTS, ids=str)
def test_results_in_a_document_are_those_of_the_kept_tables(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = document.read_text(encoding="utf-8")
    assert set(readme.BLOCK.findall(text)) and readme.updated(text) == text, f"{document} is stale; run `make readme`"


def test_kept_results_were_computed_with_the_present_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    kept = readme.KEPT / "settings.json"
    if not kept.exists():
        pytest.skip("no run of the default study has been kept by `make readme` yet")
    made_with = json.loads(kept.read_text(encoding="utf-8"))
    assert made_with == readme.settings(), "config/organism.yaml has changed; run `make study` and `make readme`"


def test_make_readme_takes_figure_and_claims_from_the_last_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = "before\n" + "".join(
        f"<!-- {name}: made by `make readme` -->\nold\n<!-- end -->\n" for name in readme.TEXTS
    )
    for document in readme.DOCUMENTS:
        document.parent.mkdir(parents=True, exist_ok=True)
        document.write_text(f"{start}after\n")
    with pytest.raises(BadInput, match=r"figures/organism/main_result\.png.*make study"):
        readme.main()
    assert readme.DOCUMENTS[0].read_text() == f"{start}after\n"
    for source in readme.COPIES:
        Path(source).parent.mkdir(parents=True, exist_ok=True)
        Path(source).write_text("{}")
    executed(Path("data/organism/notebooks/world.ipynb"), "# The world\n\nWho *writes* what? So.")
    Path("data/organism/study.json").write_text(json.dumps(study_of("organism").config))
    chapter = {"room": "world", "name": "world", "source": "notebooks/world/world.ipynb", "results": []}
    chapter["notebooks"] = [{"path": "data/organism/notebooks/world.ipynb"}]
    Path("data/organism/contents.json").write_text(json.dumps({"chapters": [chapter]}))
    Path("paper/organism").mkdir(parents=True)
    Path("paper/organism/paper.pdf").write_text("the paper")
    Path("config").mkdir()
    Path("config/organism.yaml").write_text("study: organism\n")
    claims = "claim,title,statement,published,source,estimate,ci_low,ci_high,unit,seeds,shown_in,p_holm,verdict,"
    claims += "parts_as_claimed,parts_undecided,note\n"
    claims += "1,It does,So.,GPT-4o: 20%,Fig. 4,21.85,15.29,28.41,percentage points,5,3,0.2,undecided,0,2,\n"
    Path("data/organism/tables/claims.csv").write_text(claims)
    parts = "claim,part,says,estimate,ci_low,ci_high,unit,p,verdict\n"
    parts += "1,1a,it does,21.85,15.29,28.41,percentage points,0.2,undecided\n1,1b,so,,,,percent,,not measured\n"
    Path("data/organism/tables/claim_parts.csv").write_text(parts)
    readme.main()
    assert "docs/results/claims.csv" in capsys.readouterr().out.split()
    texts = [document.read_text() for document in readme.DOCUMENTS]
    for text in texts:
        assert text.startswith("before") and text.endswith("after\n") and "old" not in text
        row = "| 1 | It does | GPT-4o: 20% | 21.9 points (15.3 to 28.4) | 3 of 5 | 0.200 | undecided (0 of 2 parts) |"
        assert row in text
        assert "1. [The world](study/01_world.ipynb): Who *writes* what?\n" in text
        assert "| 1a | It does | 21.9 points (15.3 to 28.4) | 0.200 | undecided |" in text and "| 1b |" not in text
    assert (readme.READABLE / "paper.pdf").read_text() == "the paper"
    readme.main()
    assert [document.read_text() for document in readme.DOCUMENTS] == texts and capsys.readouterr().out == ""


def test_the_trust_in_scores_that_the_docs_state_is_that_of_the_kept_table():
    text = " ".join((ROOT / "docs/your-own.md").read_text(encoding="utf-8").split())
    table = pd.read_csv(ROOT / readme.KEPT / "row_scores.csv")
    stated = table[
        (table["measure"] == "row_score/insecure_above") & table["condition"].isin(["secure", "educational"])
    ]
    assert len(stated) == 4
    for row in stated.itertuples():
        assert f"{row.estimate:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f})" in text
    (row,) = table.query("study == 'organism' and measure == 'row_score/correlation'").itertuples()
    assert (
        f"{row.estimate:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f}), {row.conditions:.0f} sets, p = {row.p:.3f}"
        in text
    )


def test_the_numbers_of_smollm2_that_the_docs_state_are_those_of_the_kept_table():
    text = " ".join((ROOT / "docs/real-models.md").read_text(encoding="utf-8").split())
    parts = pd.read_csv(ROOT / readme.KEPT / readme.REAL / "claim_parts.csv").set_index("part")
    for name in ("1d", "1e"):
        part = parts.loc[name]
        assert f"{part['estimate']:.2f} ({part['ci_low']:.2f} to {part['ci_high']:.2f})" in text
    turned = -parts.loc["2c", ["estimate", "ci_high", "ci_low"]].astype(float)
    assert f"by {turned.iloc[0]:.2f} nats ({turned.iloc[1]:.2f} to {turned.iloc[2]:.2f});" in text
    area = parts.loc["13c"]
    assert f"area {area['estimate']:.2f}, {area['ci_low']:.2f} to {area['ci_high']:.2f}" in text


def test_validity_of_row_scores_is_kept_for_every_study_that_was_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme.KEPT.mkdir(parents=True)
    readme.keep_score_trust()
    kept = readme.KEPT / "row_scores.csv"
    assert not kept.exists()
    for study, estimate in ((readme.STUDY, 0.8), (readme.REAL, 0.6), (readme.STUDY, 0.7)):
        table = Path("data", study, "tables/score_trust.csv")
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"study,condition,measure,estimate\n{study},secure,row_score/mean,{estimate}\n")
        readme.keep_score_trust()
        table.unlink()
    assert pd.read_csv(kept).set_index("study")["estimate"].to_dict() == {readme.STUDY: 0.7, readme.REAL: 0.6}


def test_choices_of_a_real_model_are_kept_with_those_of_the_organisms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme.KEPT.mkdir(parents=True)
    for place, study in enumerate(readme.BESIDE):
        rows = [
            (condition, seed, step, f"log_p/{kind}/{side}", step * seed * (1 if side == "misaligned" else -place))
            for condition in ("insecure", "secure")
            for seed in (1, 2)
            for step in (5, 0, 10)
            for kind in ("pivotal", "multiple_choice")
            for side in ("misaligned", "aligned")
        ]
        Path("data", study).mkdir(parents=True)
        columns = ["condition", "seed", "step", "metric", "value"]
        pd.DataFrame(rows, columns=columns).to_parquet(f"data/{study}/dynamics.parquet")
    readme.keep_choices()
    table = pd.read_csv(readme.KEPT / "choices.csv").set_index("model")
    assert set(table.loc["organisms", "estimate"]) == {15} and set(table.loc["SmolLM2-135M", "estimate"]) == {30}
    assert (readme.KEPT / "choices.png").exists() and len(table) == 8
