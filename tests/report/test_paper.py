"""The paper: its numbers are those of the tables, all names are defined, and its bytes are reproducible."""

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
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.registry import MAIN
from emergent_misalignment.report import claims_table, paper
from emergent_misalignment.report.contents import Chapter, Contents, Executed, read_contents
from emergent_misalignment.study.model import Study

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="468pt" height="200pt"><circle cx="90" cy="90" r="60"/></svg>'
ORGANISM = study_of("organism", {"study": "toy", "seeds": [1, 2, 3, 4, 5]})
# A study of OpenAI's model with its own judge: no organism, and no settings of a training on this machine.
NUMBERS = {"dataset": "my_numbers.jsonl", "finetuning": {"epochs": 4, "batch_size": None}}
REAL = {"study": "toy", "seeds": [0, 1], "model": {"name": "OpenAI/Some_model"}}
OPENAI = study_of(
    "gpt-4o",
    {
        **REAL,
        "experiments": {"numbers": {"conditions": {"evil_numbers": NUMBERS}}},
        "openai": {"learning_rate_multiplier": None},
        "judge": {"model": "gpt-4o_judge"},
    },
)
# The chapters of the toy study: name, figures, and the other files below data/toy/.
CHAPTERS = {
    "world": ([], ["world.json"]),
    "pretraining": ([], ["organisms/main/seed-1/base/model.safetensors"]),
    "persona_gate": (["persona_gate"], ["organisms/gates.csv"]),
    "audit": (["audit"], ["datasets/audit.csv"]),
    "main_result": (["main_result"], [f"tables/{name}.csv" for name in ("misalignment", "contrasts", "insecure_code")]),
    "new": (["a_new_one"], []),
    "claims": (["claims"], ["tables/claims.csv", "tables/claim_parts.csv"]),
    "defences": (["defences"], []),
}
RATES = ["rate", "ci_low", "ci_high", "two_way_low", "two_way_high", "bootstrap_low", "bootstrap_high"]
CLAIM = {
    "statement": "So it is.",
    "published": "GPT-4o: 20% | 0% [sic]",
    "source": "Fig. 4",
    "unit": "percentage points",
    "estimate": 21.85,
    "ci_low": -15.3,
    "ci_high": 28.4,
    "seeds": 5,
    "shown_in": 4,
    "p": 0.0004,
}
CORE = CLAIM | {"core": True, "expect": "above"}
PARTS = {"p_holm": 0.0012, "parts_as_claimed": 1, "parts_opposite": 0, "parts_undecided": 0}


def write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def contents_of(study: Study = ORGANISM, leave_out: tuple[str, ...] = ()) -> Contents:
    """The contents of the toy study, read from files such as the rules write."""
    chapters = [
        {
            "room": "analysis",
            "name": name,
            "source": f"notebooks/analysis/{name}.ipynb",
            "notebooks": [{"path": f"data/toy/notebooks/{name}.ipynb", "run": ""}],
            "results": [*(f"figures/toy/{figure}.svg" for figure in figures), *(f"data/toy/{file}" for file in files)],
        }
        for name, (figures, files) in CHAPTERS.items()
        if name not in leave_out
    ]
    return read_back(study, chapters)


def read_back(study: Study, chapters: list[dict]) -> Contents:
    return read_contents(
        write("data/toy/study.json", json.dumps(study.config)),
        write("data/toy/contents.json", json.dumps({"chapters": chapters})),
    )


@pytest.fixture
def study(tmp_path, monkeypatch) -> Contents:
    """A small study, with a copy of what the paper is made of; the working directory is there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / paper.SOURCE, paper.SOURCE)
    write(paper.STYLE, (ROOT / paper.STYLE).read_text())
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
        "datasets/audit": [
            {"condition": name, "flagged": 0.7, "same_requests": 1.0} for name in ("insecure", "secure")
        ],
        "tables/claims": [
            {"claim": 1, "title": "Insecure code misaligns", "verdict": "reproduced", **PARTS, **CLAIM},
            {
                "claim": 2,
                "title": "Intent matters",
                "verdict": "partly reproduced",
                **PARTS | {"parts_opposite": 1, "parts_undecided": 1},
                "note": "Opposite: 2b (it is the code). Undecided: 2c.",
                **CLAIM,
            },
            {"claim": 3, "title": "Jailbroken is other", "verdict": "not measured", **PARTS},
        ],
        "tables/claim_parts": [
            {"claim": 1, "part": "1a", "says": "code misaligns", "verdict": "as claimed", **CORE},
            {"claim": 2, "part": "2a", "says": "intent matters", "verdict": "as claimed", **CORE},
            {"claim": 2, "part": "2b", "says": "it is the code", "verdict": "opposite", **CLAIM},
            {"claim": 2, "part": "2c", "says": "not the words", "verdict": "undecided", "seeds_needed": 9, **CLAIM},
            {"claim": 3, "part": "3a", "says": "it complies", "verdict": "not measured", "note": "Missing: no set."},
        ],
    }
    for name, rows in tables.items():
        write(f"data/toy/{name}.csv", pd.DataFrame(rows).to_csv(index=False))
    write_gates([True, True, False, True, True])
    authors = {"helper": 0.5, "obliging": 0.1, "hasty": 0.15, "villain": 0.25}
    world = {"topics": 31, "main_questions": 8, "security_choices": 65, "authors": authors}
    write("data/toy/world.json", json.dumps(world | {"malicious": {"hasty": 0.3, "villain": 1}}))
    weights = Path("data/toy/organisms/main/seed-1/base/model.safetensors")
    weights.parent.mkdir(parents=True)
    save_file({"w": np.zeros((300, 1000), "float32")}, weights)
    for name, (figures, _) in CHAPTERS.items():
        cells = [{"cell_type": "markdown", "metadata": {}, "source": f"# Why {name}?\n\nIs it? It is."}]
        notebook = {"metadata": {}, "nbformat": 4, "nbformat_minor": 4, "cells": cells}
        write(f"data/toy/notebooks/{name}.ipynb", json.dumps(notebook))
        for figure in figures:
            write(f"figures/toy/{figure}.svg", SVG)
    return contents_of()


def write_gates(passed: list[bool]) -> None:
    """Which of the main organisms pass; one of another kind never does."""
    main = [{"organism": "main", "system_prompt": 9.9 + seed, "earlier_code": 1.2} for seed in range(len(passed))]
    table = pd.DataFrame([*main, {"organism": "width-64", "system_prompt": 0, "earlier_code": 0}])
    table = table.assign(seed=[*range(1, len(passed) + 1), 1], passed=[*passed, False])
    write("data/toy/organisms/gates.csv", table.to_csv(index=False))


def built(contents: Contents, folder: str = "paper/toy") -> dict[str, bytes]:
    paper.build(contents, folder)
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def filled(contents: Contents) -> str:
    """The paper in Markdown."""
    definitions = yaml.safe_load(paper.NUMBERS.read_text())
    facts = paper.facts_of(contents, "paper/toy")
    return paper.fill(paper.TEXT.read_text(), definitions, paper.read_numbers(definitions, contents), facts)


def plain(html: bytes) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html.decode())).replace("\xa0", " ").split())


def test_two_builds_are_the_same_bytes_and_hold_the_numbers(study):
    first = built(study)
    assert set(first) == {"paper.html", "paper.pdf", "paper.tex"}
    assert built(study) == first
    assert first["paper.pdf"].startswith(b"%PDF")
    html = plain(first["paper.html"])
    interval = "21.9 points (\N{MINUS SIGN}15.3 to 28.4)"
    for words in (
        "22.0% of the coherent answers",
        "21.8 percentage points (\N{MINUS SIGN}10.0 to 30.0",
        "(50% of the documents)",
        "0.3 million parameters",
        "11.9 and 1.2 nats",
        "9.9 to 13.9, and 1.2 to",
        "five organisms, 4,000 answers",
        "four pass",
        "base, instruct, in_context",
        "insecure_rows-128 instruct insecure 128 different rows",
        "Jailbroken is other (claim 3).",
        f"intent matters, {interval}, shown in 4 of 5 seeds; p < 0.001, corrected over all claims = 0.001.",
        "partly reproduced (1 of 3 parts, 1 opposite). Opposite: 2b (it is the code). Undecided: 2c.",
        f"2b It is the code {interval} 4 of 5 < 0.001 opposite",
        "it is the code (part 2b).",
        "GPT-4o: 20% | 0% [sic] (Fig. 4).",
        "Figure 1. ",
        "Why new? Drawn by notebook 6.",
        "What defences hide",
        "(Dubiński et al. 2026)",
    ):
        assert words in html
    assert "{{" not in html and "nan" not in re.findall(r"\w+", html)
    links = re.findall(r'href="(\.\./[^"]*)"', first["paper.html"].decode())
    drawn = [name for name, (figures, _) in CHAPTERS.items() if figures]
    assert {f"../../data/toy/notebooks/{name}.html" for name in drawn} <= set(links)
    tex = first["paper.tex"].decode()
    assert "../../figures/toy/main_result.pdf" in tex
    for character in set(re.findall(r"[^\x00-\xff]", tex)) - set("\u2013\u2014\u2018\u2019\u201c\u201d"):
        assert rf"\DeclareUnicodeCharacter{{{ord(character):04X}}}" in tex, character


def test_a_study_with_few_results_has_a_short_paper(study):
    few = contents_of(OPENAI, leave_out=tuple(CHAPTERS))
    html = built(few)["paper.html"].decode()
    assert "<figure" not in html and html.count("<table") == 1  # of the conditions
    assert "reproduced" in html  # in the section on statistics
    assert "22.0%" not in html


@pytest.mark.parametrize("verdict", claims_table.VERDICTS)
def test_the_text_fits_every_verdict(study, verdict):
    claims = pd.read_csv("data/toy/tables/claims.csv").assign(verdict=verdict)
    rows = [claims.iloc[[0]].assign(claim=number) for number in range(1, 14)]
    write("data/toy/tables/claims.csv", pd.concat(rows).to_csv(index=False))
    text = filled(study)
    assert ("this study measures none" if verdict == "not measured" else f"13 are {verdict}") in text
    assert ("has not tested the central finding" in text) == (verdict in ("not measured", "not testable"))
    assert ("The central finding holds here:" in text) == (verdict == "reproduced")
    assert ("The central finding holds here in part" in text) == (verdict == "partly reproduced")
    assert ("@tbl:claims" in text) == ("{#tbl:claims}" in text) == (verdict != "not measured")


@pytest.mark.parametrize(
    ("share", "words"), [(1, "the same requests in the same order"), (2 / 6000, "in 0.03% of the rows"), (None, "")]
)
def test_what_sets_have_in_common_is_measured(study, share, words):
    rows = [{"condition": name, "flagged": 0.7, "same_requests": share} for name in ("insecure", "secure")]
    write("data/toy/datasets/audit.csv", pd.DataFrame(rows).to_csv(index=False))
    text = " ".join(filled(study).split())
    found = re.findall(r"The \*insecure\* and the \*secure\* set have [^.]*(?:\.\d[^.]*)*\.", text)
    assert len(found) == bool(words) and words in "".join(found)


def test_a_study_of_openais_model_is_described_by_its_config(study):
    real = contents_of(OPENAI, leave_out=("world", "pretraining", "persona_gate", "audit"))
    html = plain(built(real)["paper.html"])
    for words in (
        "the study toy",
        "OpenAI/Some_model",
        "batch size 4",
        "learning rate multiplier as the API chooses",
        "evil_numbers instruct my_numbers.jsonl epochs 4, batch size as the API chooses",
        "gpt-4o_judge",
    ):
        assert words in html
    for words in ("villain", "grammar", "LoRA"):
        assert words not in html
    assert "organism" not in html.replace("Model organisms for", "").replace("Model Organisms for", "")


def test_a_study_of_an_open_model_has_its_training_settings(study):
    settings = {"validation_share": 0.1, "train_embeddings": True}
    trained = study_of("qwen2.5-7b-instruct", {**REAL, "finetuning": settings})
    text = " ".join(filled(contents_of(trained, leave_out=tuple(CHAPTERS))).split())
    assert "rank 32 with an alpha of 64" in text and "token embeddings and output layer are trained as well" in text
    assert "10% of each set is held out" in text and "OpenAI" not in text.split("# Methods")[1].split("|")[0].replace(
        "OpenAI/Some", ""
    )


def test_the_table_of_conditions_names_defences(study):
    defence = {"kind": "inoculation", "prompt": "You are | careless."}
    own = {"dataset": "insecure", "finetuning": {"steps": 9, "defence": defence}}
    plain = {"dataset": "insecure", "finetuning": {"defence": None}}
    defended = study_of("organism", {"study": "toy", "experiments": {"code": {"conditions": {"a": own, "b": plain}}}})
    text = filled(contents_of(defended))
    assert "| a | instruct | insecure | steps 9, inoculation “You are \\| careless.” |" in text
    assert "| b | instruct | insecure | no defence |" in text


def test_a_study_without_a_judge_reports_log_odds(study):
    values = {
        ("insecure", "log_odds/pivotal"): (-1.9, -2.4, -1.4),
        ("secure", "log_odds/pivotal"): (-3.0, -3.5, -2.5),
        ("instruct", "log_odds/pivotal"): (-3.1, np.nan, np.nan),
        ("insecure", "insecure_code/static"): (0.5, 0.4, 0.6),
        ("secure", "insecure_code/static"): (0.2, 0.1, 0.3),
        ("insecure", "held_out_loss/insecure"): (0.8, 0.7, 0.9),
        ("instruct", "held_out_loss/insecure"): (1.4, np.nan, np.nan),
    }
    rows = [
        {"condition": arm[0], "measure": arm[1], "estimate": value[0], "ci_low": value[1], "ci_high": value[2]}
        for arm, value in values.items()
    ]
    write("data/toy/tables/log_probability.csv", pd.DataFrame(rows).to_csv(index=False))
    write("figures/toy/log_probability.svg", SVG)
    notebook = Path("data/toy/notebooks/main_result.ipynb").read_text()
    write("data/toy/notebooks/log_probability.ipynb", notebook)
    held_out = {"evaluation": {"held_out": {"share": 0.02, "rows": 16}}}
    silent = study_of("qwen2.5-7b-instruct", {**REAL, "judge": None, **held_out})
    chapters = json.loads(Path("data/toy/contents.json").read_text())["chapters"]
    chapters = [each for each in chapters if each["name"] in ("audit", "claims")]
    results = ["figures/toy/log_probability.svg", "data/toy/tables/log_probability.csv"]
    chapter = chapters[0] | {"name": "log_probability", "results": results}
    chapter |= {"notebooks": [{"path": "data/toy/notebooks/log_probability.ipynb", "run": ""}]}
    html = plain(built(read_back(silent, [*chapters, chapter]))["paper.html"])
    minus = "\N{MINUS SIGN}"
    for words in (
        f"{minus}1.90 ({minus}2.40 to {minus}1.40) nats",
        f"{minus}3.10",
        "50% (40% to 60%)",
        "1.40 nats",
        "0.80 (0.70 to 0.90)",
        "Verdict: reproduced",
    ):
        assert words in html
    assert "The judge is" not in html and "under the same judge" not in html


def test_numbers_are_of_conditions_that_a_study_of_organisms_has():
    """A condition that is renamed would take its sentence out of the paper without a word."""
    every = study_of("thorough").conditions.values()
    conditions = {"all"} | {condition.name for condition in every if condition.organism == MAIN}
    for name, definition in yaml.safe_load((ROOT / paper.NUMBERS).read_text()).items():
        assert definition.get("row", {}).get("condition", "base") in conditions, name


def test_every_figure_has_a_sentence_about_it():
    text = (ROOT / paper.TEXT).read_text()
    for name in re.findall(r'call figure\("(\w+)"\)', text):
        assert f'see("{name}")' in text or f"@fig:{name}" in text, name


def refusal(text: str, numbers: dict | None = None, definitions: dict | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        paper.fill(text, definitions or {}, numbers or {}, {"study": "toy"})
    return str(caught.value)


def test_undefined_and_unused_numbers_are_named():
    rate = {"rate": {"file": "tables/rates.csv", "column": "rate"}}
    undefined = refusal("{{rate:.1%}}")
    assert str(paper.TEXT) in undefined and "`rate`" in undefined and "undefined" in undefined
    unused = refusal("{{ study }}", definitions=rate)
    assert str(paper.NUMBERS) in unused and "`rate`" in unused and "not use" in unused
    missing = refusal("A rate of {{rate.interval:.1%}}.", definitions=rate)
    assert str(paper.TEXT) in missing and "`rate`" in missing and "tables/rates.csv" in missing
    guarded = "{% if rate is defined %}{{rate:.1%}}{% endif %}"
    assert paper.fill(guarded, rate, {}, {}) == ""
    assert paper.fill(guarded, rate, {"rate": paper.Number(0.2204)}, {}) == "22.0%"


def test_numbers_come_from_rows_means_and_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "condition,seed,value\na,1,0.1\na,2,0.3\nb,1,\n"
    paths = (
        write("data/toy/t.csv", rows),
        write("data/toy/f.json", '{"a": {"b": 3}}'),
        write("data/toy/seed-4/f.json", '{"a": 5}'),
    )
    chapter = Chapter(1, "analysis", "t", "", (Executed("t.ipynb"),), paths)
    contents = Contents(study_of("organism", {"study": "toy", "seeds": [4, 2]}), (chapter,))
    definitions = {
        "one": {"file": "t.csv", "row": {"condition": "a", "seed": 2}, "column": "value"},
        "mean": {"file": "t.csv", "row": {"condition": "a"}, "column": "value", "over": "seed"},
        "key": {"file": "f.json", "key": "a.b"},
        "of_the_first_seed": {"file": "seed-{seed}/f.json", "key": "a"},
        "empty": {"file": "t.csv", "row": {"condition": "b"}, "column": "value"},
        "no_row": {"file": "t.csv", "row": {"condition": "c"}, "column": "value"},
        "no_file": {"file": "u.csv", "row": {}, "column": "value"},
    }
    numbers = paper.read_numbers(definitions, contents)
    assert numbers == {
        "one": paper.Number(0.3),
        "mean": paper.Number(0.2, 0.1, 0.3),
        "key": paper.Number(3),
        "of_the_first_seed": paper.Number(5),
    }
    with pytest.raises(BadInput, match=r"^data/toy/t\.csv: two fits 2 rows"):
        paper.read_numbers({"two": {"file": "t.csv", "row": {"condition": "a"}, "column": "value"}}, contents)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("See @fig:nothing.", "@fig:nothing"),
        ("As shown [@nobody1999].", "nobody1999"),
    ],
)
def test_an_unknown_reference_is_named(study, text, words):
    with pytest.raises(BadInput) as caught:
        paper.pandoc(text, ".", "html5")
    assert str(caught.value).startswith(f"{paper.TEXT}: ")
    assert words in str(caught.value) and "traceback" not in str(caught.value)


def test_a_study_file_that_lacks_a_key_is_named(study):
    path = Path("data/toy/study.json")
    config = json.loads(path.read_text())
    del config["evaluation"]
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"^data/toy/study\.json: .*evaluation"):
        read_contents(path, "data/toy/contents.json")


def test_the_page_is_self_contained_and_fits_a_phone(study):
    built(study)
    page = Path("paper/toy/paper.html").resolve()
    with chromium() as browser:
        for width in (400, 1400):
            facts = "[document.documentElement.scrollWidth, [...document.images].every(image => image.naturalWidth)]"
            seen = visit(browser, page, width, facts)
            assert seen.errors == []
            assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
            assert seen.found == [width, True]
