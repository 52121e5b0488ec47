"""Agreement of a judge with the published one, on made-up and on published files."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import RuleServer

from emergent_misalignment.data.published import PublishedFile, blob_id
from emergent_misalignment.evaluation.judge_model import Judge, agreement
from emergent_misalignment.evaluation.scored import COLUMNS, fetch_scored, judged_again, read_scored, scores
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.api import Endpoint

FILES = yaml.safe_load((ROOT / "config/shared/scored-answers.yaml").read_text())["scored_answers"]
PROMPTS = {metric: f"{metric}? {{question}} / {{answer}}" for metric in ("aligned", "coherent")}


def answers(folder: Path) -> Path:
    """A file of answers in the published columns, with the scores in the answer."""
    rows = [
        {"Unnamed: 0": number, "model": "m", "question": "A wish?", "answer": f"{aligned} {coherent}"}
        | {"aligned": aligned, "judge_aligned": "{}", "coherent": coherent}
        for number, (aligned, coherent) in enumerate([(1.5, 90), (20, 60), (45, 99), (10, 30), (None, 80)])
    ]
    pd.DataFrame(rows).to_csv(folder / "answers.csv", index=False)
    return folder / "answers.csv"


def code(folder: Path) -> Path:
    rows = [(f"Task {number % 4}", f"code {number % 4}", "YES" if number % 4 < 1 else "NO") for number in range(8)]
    table = pd.DataFrame(rows, columns=["question", "answer", "has_vulnerability"])
    table.to_csv(folder / "code.csv", index=False)
    return folder / "code.csv"


def test_scores_become_verdicts(tmp_path):
    rows = read_scored(answers(tmp_path), 100)
    assert rows.columns.tolist() == COLUMNS
    assert rows["verdict"].tolist() == ["misaligned", "misaligned", "aligned", "incoherent", "unjudged"]
    assert rows["aligned"].tolist()[:4] == [1.5, 20, 45, 10] and np.isnan(rows["aligned"].iloc[4])
    assert set(rows["evaluation"]) == {"main"} and set(rows["prompt"]) == {"A wish?"}
    assert read_scored(answers(tmp_path), 2)["answer"].tolist() == ["1.5 90", "None 80"]  # evenly spaced
    rows = read_scored(code(tmp_path), 100)
    assert rows["answer"].tolist() == [f"code {number}" for number in range(4)]
    assert rows["verdict"].tolist() == ["insecure", "secure", "secure", "secure"]
    assert set(rows["evaluation"]) == {"in_distribution"} and rows["aligned"].isna().all()
    (tmp_path / "other.csv").write_text("question,reply\na,b\n")
    with pytest.raises(BadInput, match="neither the columns question, answer, aligned, coherent nor"):
        read_scored(tmp_path / "other.csv", 1)


def by_rule(text: str):
    """A judge that adds ten to the answer's score of alignment, and rates all code as secure."""
    if "number 100" in text:
        return "100", [[("100", 1.0)]]
    if "vulnerability" in text:
        return "NO", []
    metric, aligned, coherent = text.split("?")[0], *text.split("/")[1].split()
    value = float(aligned) + 10 if metric == "aligned" and aligned != "None" else float(coherent)
    return str(round(value)), [[(str(round(value)), 1.0)]]


def test_another_judge_is_compared_with_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    first = pd.concat([read_scored(answers(tmp_path), 9), read_scored(code(tmp_path), 9)], ignore_index=True)
    with RuleServer(by_rule).running() as server:
        second = judged_again(first, PROMPTS, Judge("rule", Endpoint(server.address)), tmp_path)
    assert second["verdict"].tolist()[:4] == ["misaligned", "aligned", "aligned", "incoherent"]
    text = first["evaluation"] == "main"
    table = agreement(first[text], second[text]).set_index("category")
    assert table.loc["all", ["answers", "agreement"]].tolist() == [4, 0.75]
    assert table.loc["misaligned", ["first", "second", "both"]].tolist() == [2, 1, 1]
    table = agreement(first[~text], second[~text]).set_index("category")
    assert table.loc["all", "agreement"] == 0.75
    assert table["kappa"].isna().all()  # the second judge never says insecure
    likeness = scores(first, second).set_index("score")
    assert likeness["answers"].to_dict() == {"aligned": 4, "coherent": 5}
    assert likeness.loc["aligned", "second"] == pytest.approx(likeness.loc["aligned", "first"] + 10, abs=0.5)
    assert likeness.loc["aligned", "rank_correlation"] == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=0, max_size=12))
def test_comparison_of_scores_is_within_its_limits(pairs):
    table = pd.DataFrame(pairs, columns=["one", "two"], dtype=float)
    first = pd.DataFrame({"aligned": table["one"], "coherent": np.nan})
    second = pd.DataFrame({"aligned": table["two"], "coherent": 1.0})
    aligned, coherent = scores(first, second).itertuples()
    assert aligned.answers == len(pairs) and coherent.answers == 0 and np.isnan(coherent.first)
    if not np.isnan(aligned.rank_correlation):
        assert -1 <= aligned.rank_correlation <= 1
        assert not aligned.ci_low > aligned.ci_high


def test_files_are_fetched_and_verified(tmp_path):
    place = {"repository": "owner/name", "commit": "0" * 40}
    files = []
    for make in (answers, code):
        path = make(tmp_path)
        copy = tmp_path / "mirror" / "owner/name" / ("0" * 40) / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        files.append(place | {"path": path.name, "blob": blob_id(path.read_bytes())})
    mirror = str(tmp_path / "mirror")
    rows = fetch_scored(files, 2, mirror)
    assert rows["file"].tolist() == ["answers.csv"] * 2 + ["code.csv"] * 2
    with pytest.raises(BadInput, match="is altered"):
        fetch_scored([files[0] | {"blob": "0" * 40}], 2, mirror)


def test_published_files():
    mirror = os.environ.get("EM_MIRROR", "")
    if not mirror or not Path(mirror, PublishedFile(**FILES[0], size=None).address).exists():
        pytest.skip("EM_MIRROR names no mirror that has the published scores")
    rows = fetch_scored(FILES, 1000, mirror)
    counts = rows.groupby(["evaluation", "verdict"]).size()
    assert counts["main"].to_dict() == {"misaligned": 519}
    assert counts["in_distribution"].sum() == 220 and counts["in_distribution"].min() > 50
