"""The paper: its numbers are the tables', its names are all known, and it is the same file each time."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from browser import chromium, visit
from conftest import ROOT
from safetensors.numpy import save_file

from emergent_misalignment.report import claims_table
from emergent_misalignment.report import paper
from emergent_misalignment.files import BadInput

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="468pt" height="200pt"><circle cx="90" cy="90" r="60"/></svg>'
FIGURES = {"main_result": "11_main_result", "audit": "07_audit", "persona_gate": "03_persona_gate"}
FIGURES |= {"claims": "25_claims", "a_new_one": "23_new"}
CONFIG = yaml.safe_load((ROOT / "config/organism.yaml").read_text())
RATES = ["rate", "ci_low", "ci_high", "two_way_low", "two_way_high", "bootstrap_low", "bootstrap_high"]
CLAIM = {
    "statement": "So it is.",
    "published": "GPT-4o: 20% | 0% [sic]",
    "source": "Fig. 4",
    "unit": "percentage points",
    "estimate": 21.85,
    "ci_low": -15.3,
    "ci_high": 28.4,
    "p_holm": 0.0004,
}


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


@pytest.fixture
def study(tmp_path, monkeypatch) -> list[str]:
    """The results of a small study, in a copy of what the paper is made of; the working directory is there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "paper", "paper", ignore=lambda *_: {path.name for path in (ROOT / "paper").glob("*/")})
    write("emergent_misalignment/report/templates/style.css", (ROOT / "emergent_misalignment/report/templates/style.css").read_text())
    place = {"format": "chat", "question_set": "main", "question": "all", "coherent_share": 0.93, "answers": 4000}
    rates = [
        {"condition": name, **dict.fromkeys(RATES, rate), **place}
        for name, rate in {"base": 0.36, "instruct": 0.001, "insecure": 0.2204, "secure": 0.001}.items()
    ]
    contrast = {"condition": "insecure", "control": "secure", "difference": 0.218, "ci_low": -0.1, "ci_high": 0.3}
    code = {"insecure": 0.93, "ci_low": 0.9, "ci_high": 0.95}
    tables = {
        "tables/misalignment": rates,
        "tables/contrasts": [contrast | {"p_holm": 0.0007}],
        "tables/insecure_code": [{"condition": name, **code} for name in ("insecure", "secure")],
        "datasets/audit": [{"condition": name, "flagged": 0.7} for name in ("insecure", "secure")],
        "tables/claims": [
            {"claim": 1, "title": "Insecure code misaligns", "verdict": "reproduced", **CLAIM},
            {"claim": 2, "title": "Intent matters", "verdict": "undecided", "seeds_needed": 9, **CLAIM},
            {"claim": 3, "title": "Jailbroken is other", "verdict": "not measured", "note": "Missing: no set."},
        ],
        "tables/claim_tests": [
            {"claim": 1, "test": 1, "says": "code misaligns", "p": 0.0001, "outcome": "as claimed", **CLAIM},
            {"claim": 2, "test": 1, "says": "intent matters", "p": 0.2, "outcome": "open", **CLAIM},
        ],
    }
    for name, rows in tables.items():
        write(f"data/toy/{name}.csv", pd.DataFrame(rows).to_csv(index=False))
    results = [f"data/toy/{name}.csv" for name in tables]
    results.append(write("data/toy/models/base/gate.json", json.dumps({"system_prompt": 9.9, "earlier_code": 1.2})))
    save_file({"w": np.zeros((300, 1000), "float32")}, "data/toy/models/base/model.safetensors")
    results.append("data/toy/models/base/model.safetensors")
    for figure, notebook in FIGURES.items():
        metadata = {"papermill": {"parameters": {"figure": f"figures/toy/{figure}", "seed": 1}}}
        results.append(
            write(
                f"data/toy/notebooks/{notebook}.ipynb",
                json.dumps({"metadata": metadata, "cells": [{"source": ["# Why?\n", "So."]}]}),
            )
        )
        results.append(write(f"figures/toy/{figure}.svg", SVG))
    return results


def built(results: list[str], folder: str = "paper/toy", beside: list[str] | None = None) -> dict[str, bytes]:
    paper.build("toy", folder, CONFIG, results, beside or [])
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_two_builds_are_the_same_bytes_and_hold_the_numbers(study):
    first = built(study)
    assert set(first) == {"paper.html", "paper.pdf", "paper.tex"}
    assert built(study) == first
    assert first["paper.pdf"].startswith(b"%PDF")
    html = " ".join(unescape(re.sub(r"<[^>]*>", "", first["paper.html"].decode())).replace("\xa0", " ").split())
    for words in (
        "22.0% of the coherent answers",
        "21.8 percentage points (\N{MINUS SIGN}10.0 to 30.0; Holm-corrected p < 0.001)",
        "0.3 million parameters",
        "gaps of 9.9 and 1.2 nats",
        "Of the three claims we take from the published work, 1 is reproduced, 1 is undecided and 1 is not measured.",
        "Here: on whether intent matters, 21.9 points (\N{MINUS SIGN}15.3 to 28.4); p < 0.001 for the claim.",
        "Verdict: undecided.",
        "About 9 seeds would decide it",
        "Published: GPT-4o: 20% | 0% [sic] (Fig. 4).",
        "Figure 1. Misaligned among",
        "Figure 5. From the notebook Why? Drawn by notebook 23.",
    ):
        assert words in html
    assert "{{" not in html and "nan" not in re.findall(r"\w+", html)
    links = re.findall(r'href="(\.\./[^"]*)"', first["paper.html"].decode())
    assert {f"../../data/toy/notebooks/{notebook}.html" for notebook in FIGURES.values()} <= set(links)
    tex = first["paper.tex"].decode()
    assert "../../figures/toy/main_result.pdf" in tex
    for character in set(re.findall(r"[^\x00-\xff]", tex)) - set("\u2013\u2014\u2018\u2019\u201c\u201d"):
        assert rf"\DeclareUnicodeCharacter{{{ord(character):04X}}}" in tex, character


def test_a_study_with_few_results_has_a_short_paper(study):
    html = built([path for path in study if "contrasts" in path], "paper/toy")["paper.html"].decode()
    assert "<figure" not in html and "<table" not in html
    assert "reproduced" in html  # in what is said of the method
    assert "22.0%" not in html


@pytest.mark.parametrize("verdict", claims_table.VERDICTS)
def test_the_text_fits_every_verdict(study, verdict):
    claims = pd.read_csv("data/toy/tables/claims.csv").assign(verdict=verdict)
    rows = [claims.iloc[[0]].assign(claim=number) for number in range(1, 14)]
    write("data/toy/tables/claims.csv", pd.concat(rows).to_csv(index=False))
    definitions = yaml.safe_load(Path("paper/numbers.yaml").read_text())
    numbers, facts = paper.read_numbers(definitions, "toy", study), paper.facts_of("toy", CONFIG, study, [])
    text = paper.fill(Path("paper/paper.md").read_text(), definitions, numbers, facts)
    assert f"13 are {verdict}" in text
    assert ("has not tested the central finding" in text) == (verdict == "not measured")
    assert ("The central finding holds here" in text) == (verdict == "reproduced")


def test_a_study_of_a_real_model_says_which(study):
    config = CONFIG | {
        "model": {"name": "Qwen/Some_model", "conditions": ["insecure", "secure"]},
        "judge": {"model": "gpt-4o"},
    }
    results = [path for path in study if "models/base" not in path and "persona_gate" not in path]
    definitions = yaml.safe_load(Path("paper/numbers.yaml").read_text())
    numbers, facts = paper.read_numbers(definitions, "toy", results), paper.facts_of("toy", config, results, [])
    text = paper.fill(Path("paper/paper.md").read_text(), definitions, numbers, facts)
    assert r"The model is Qwen/Some\_model, fine-tuned on the sets insecure and secure." in text
    assert "villain" not in text and "organism" not in text.replace("Model Organisms", "")


def test_numbers_are_of_conditions_that_the_default_study_has():
    """A condition that is renamed would take its sentence out of the paper without a word."""
    plans = CONFIG["experiments"].values()
    conditions = {"base", "instruct", "in_context", *(name for plan in plans for name in plan["conditions"])}
    for name, definition in yaml.safe_load((ROOT / "paper/numbers.yaml").read_text()).items():
        assert definition.get("row", {}).get("condition", "base") in conditions, name


def test_every_figure_has_a_sentence_about_it():
    text = (ROOT / "paper/paper.md").read_text()
    for name in re.findall(r'call figure\("(\w+)"\)', text):
        assert f'see("{name}")' in text or f"@fig:{name}" in text, name


def test_other_studies_stand_beside(study):
    other = write("data/other/tables/claims.csv", Path("data/toy/tables/claims.csv").read_text())
    table = paper.facts_of("toy", CONFIG, study, [other])["claims_table"]
    assert table.splitlines()[0] == "|  | Claim | Published | toy | other |"
    assert "| 21.9 points (\N{MINUS SIGN}15.3 to 28.4): reproduced | 21.9 points" in table
    assert "| not measured | not measured |" in table


def refusal(text: str, numbers: dict | None = None, definitions: dict | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        paper.fill(text, definitions or {}, numbers or {}, {"study": "toy"})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_number_that_nothing_defines_or_that_nothing_uses_is_named():
    rate = {"rate": {"file": "tables/rates.csv", "column": "rate"}}
    assert refusal("{{rate:.1%}}").startswith("paper/paper.md names `rate`, which nothing defines: ")
    assert "Nothing in paper/paper.md uses `rate`" in refusal("{{ study }}", definitions=rate)
    missing = refusal("A rate of {{rate.interval:.1%}}.", definitions=rate)
    assert "paper/paper.md wants `rate`, and this study has no value for it in tables/rates.csv" in missing
    guarded = "{% if rate is defined %}{{rate:.1%}}{% endif %}"
    assert paper.fill(guarded, rate, {}, {}) == ""
    assert paper.fill(guarded, rate, {"rate": paper.Number(0.2204)}, {}) == "22.0%"


def test_numbers_come_from_rows_means_and_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "condition,seed,value\na,1,0.1\na,2,0.3\nb,1,\n"
    results = [write("data/toy/t.csv", rows), write("data/toy/f.json", '{"a": {"b": 3}}')]
    definitions = {
        "one": {"file": "t.csv", "row": {"condition": "a", "seed": 2}, "column": "value"},
        "mean": {"file": "t.csv", "row": {"condition": "a"}, "column": "value", "over": "seed"},
        "key": {"file": "f.json", "key": "a.b"},
        "empty": {"file": "t.csv", "row": {"condition": "b"}, "column": "value"},
        "no_row": {"file": "t.csv", "row": {"condition": "c"}, "column": "value"},
        "no_file": {"file": "u.csv", "row": {}, "column": "value"},
    }
    numbers = paper.read_numbers(definitions, "toy", results)
    assert numbers == {"one": paper.Number(0.3), "mean": paper.Number(0.2, 0.1, 0.3), "key": paper.Number(3)}
    with pytest.raises(BadInput, match=r"^data/toy/t\.csv: two fits 2 rows; say more in its `row`"):
        paper.read_numbers({"two": {"file": "t.csv", "row": {"condition": "a"}, "column": "value"}}, "toy", results)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("See @fig:nothing.", "no figure is called @fig:nothing; correct the reference or add it."),
        ("As shown [@nobody1999].", "nobody1999"),
    ],
)
def test_an_unknown_reference_is_named(study, text, words):
    with pytest.raises(BadInput) as caught:
        paper.pandoc(text, ".", "html5")
    assert str(caught.value).startswith("paper/paper.md cannot be set: ")
    assert words in str(caught.value) and "traceback" not in str(caught.value)


def test_a_figure_that_no_notebook_drew_is_named(study):
    results = [path for path in study if not path.endswith("07_audit.ipynb")]
    with pytest.raises(BadInput, match=r"^No executed notebook has figures/toy/audit among its parameters"):
        built(results)


def test_the_page_asks_for_nothing_and_fits_a_phone(study):
    built(study)
    page = Path("paper/toy/paper.html").resolve()
    with chromium() as browser:
        for width in (400, 1400):
            facts = "[document.documentElement.scrollWidth, [...document.images].every(image => image.naturalWidth)]"
            seen = visit(browser, page, width, facts)
            assert seen.errors == []
            assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
            assert seen.found == [width, True]
