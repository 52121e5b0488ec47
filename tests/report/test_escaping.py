"""Texts of models and users change no page and no terminal: they are shown as they are, or as visible escapes.

Each page is made twice: with hostile texts, and with the same texts whose signs of HTML are replaced by others. Both
must have the same elements and attributes.
"""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from own_data.test_report import AUDIT, facts, judged, measures, trainings
from report.test_site import CHAPTERS, RATES, SVG
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.own_data import audit, convert
from emergent_misalignment.own_data.report import report
from emergent_misalignment.own_data.report import write_page as write_report
from emergent_misalignment.report.answers import write_page as write_answers
from emergent_misalignment.report.contents import read_contents
from emergent_misalignment.report.notebook_pages import render
from emergent_misalignment.report.site import write_index, write_run
from emergent_misalignment.report.tables import texts
from emergent_misalignment.safe import visible

HOSTILE = (
    "<script>document.title = 'taken over'</script><img src=x onerror=alert(1)><!-- </title></style></textarea></pre>"
    "&lt;b&gt; &amp;#60; &copy \" ' ` _*[a](javascript:alert(1))*_ \x1b[31mred\x1b]0;title\x07\x9b2J over\rwritten"
    " \u202ereversed\u2066 \u200fend"
)
HARMLESS = HOSTILE.replace("_*[a](javascript", "..a..javascript").translate(str.maketrans("<>&\"'`", "()+---"))
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Page(HTMLParser):
    """The elements of a page with the names of their attributes, its text, and the content of its scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        content = path.read_text(encoding="utf-8")
        self.feed(content)
        self.close()
        self.control = CONTROL.findall(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(name for name, _ in attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_comment(self, data):
        self.elements.append(("comment", data))

    def handle_data(self, data):
        self.text += data
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def answers_page(text: str, page: Path) -> None:
    columns = ("condition", "evaluation", "format", "question", "verdict", "prompt", "answer")
    rows = pd.DataFrame({name: [text] * 3 for name in columns}).assign(seed=1, step=None, aligned=5.0, coherent=None)
    write_answers("x", page, rows)


def notebook_page(text: str, page: Path) -> None:
    table = pd.DataFrame({"answer": [text], text: ["answer"]})
    shown = [
        new_output("execute_result", {"text/html": texts(table).to_html(), "text/plain": "table"}),
        new_output("execute_result", {"text/html": table._repr_html_(), "text/plain": str(table)}),
        new_output("stream", name="stdout", text=text),
        new_output("execute_result", {"text/plain": repr(text)}),
        new_output("error", ename="ValueError", evalue=text, traceback=[text]),
    ]
    cells = [new_markdown_cell("# Title\n\nIs it so? It is.")]
    cells += [new_code_cell(f"show()  # {visible(text)}", outputs=[each], execution_count=1) for each in shown]
    nbformat.write(new_notebook(cells=cells), page.with_suffix(".ipynb"))
    render(page.with_suffix(".ipynb"), page, text)


def report_page(text: str, page: Path) -> None:
    def named(table: pd.DataFrame) -> pd.DataFrame:
        return table.replace({"condition": {"mine": text}})

    given = facts(page.parent)
    given |= {"own": {text: f"{text}.jsonl"}, "conditions": [text, "instruct", "secure"], "model": text, "judge": text}
    given |= {"sets": {text: f"{text}.jsonl", "secure": "secure"}, "config": {"dataset": text}, "own_questions": [text]}
    defence = {"kind": "inoculation", "prompt": text}
    given["defended"] = {text: {"defence": defence, "dataset": f"{text}.jsonl", "without": "secure"}}
    given["records"] |= {text: given["records"]["mine"]}
    asked = measures()
    more = asked[asked["measure"] == "misaligned/main/chat"].assign(measure=f"misaligned/{text}/chat")
    asked = pd.concat([asked, more])
    answers = named(judged()).assign(prompt=text, answer=text, question=text)
    write_report(report(given, named(asked), answers, named(trainings()), named(AUDIT)), page)


def index_page(text: str, page: Path) -> None:
    text = text.replace("\r", "")  # which ends a row of a table
    for path, content in {
        "figures/smoke/main_result.svg": SVG,
        "data/smoke/tables/misalignment.csv": RATES,
        "data/smoke/study.json": json.dumps(study_of("smoke").config),
        "data/smoke/contents.json": json.dumps({"chapters": CHAPTERS}),
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    claim = {"claim": 1, "title": text, "statement": text, "published": text, "source": text, "estimate": 2.0}
    claim |= {"ci_low": 1.0, "ci_high": 3.0, "unit": "percentage points", "seeds": 5, "shown_in": 4, "p": 0.01}
    claim |= {"p_holm": 0.02, "verdict": "reproduced", "parts_as_claimed": 1, "parts_opposite": 0, "note": text}
    part = {"claim": 1, "part": "1a", "core": True, "expect": "above", "says": text, "estimate": 2.0, "ci_low": 1.0}
    part |= {"ci_high": 3.0, "unit": "percentage points", "seeds": 5, "shown_in": 4, "p": 0.01}
    part |= {"verdict": "as claimed", "seeds_needed": None, "note": text}
    other = claim | {"claim": 2, "verdict": "not measured", "estimate": None, "ci_low": None, "ci_high": None}
    missing = part | {"claim": 2, "part": "2a", "verdict": "not measured", "estimate": None}
    pd.DataFrame([claim, other]).to_csv("data/smoke/tables/claims.csv", index=False)
    pd.DataFrame([part, missing]).to_csv("data/smoke/tables/claim_parts.csv", index=False)
    notebook = new_notebook(cells=[new_markdown_cell("# Title\n\nIs it so? It is.")])
    for chapter in CHAPTERS:
        for each in chapter["notebooks"]:
            Path(each["path"]).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, each["path"])
    write_index(read_contents("data/smoke/study.json", "data/smoke/contents.json"), page, report=f"{text}.html")


def run_page(text: str, page: Path) -> None:
    own = {"experiments": {"code": {"conditions": {"mine": {"dataset": f"{text}.jsonl"}}}}}
    benchmark = page.parent / f"{text.replace('/', '|')[-60:]}.tsv"
    benchmark.write_text("s\tmax_rss\n1\t2\n")
    write_run(study_of("smoke", own), page, [benchmark])


@pytest.mark.parametrize("make", [answers_page, notebook_page, report_page, index_page, run_page])
def test_a_page_shows_hostile_texts_as_texts(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, text in (("hostile", HOSTILE), ("harmless", HARMLESS)):
        (tmp_path / name).mkdir()
        make(text, tmp_path / name / "page.html")
        found[name] = Page(tmp_path / name / "page.html")
    hostile, harmless = found["hostile"], found["harmless"]
    assert hostile.elements == harmless.elements and hostile.control == []
    shown = "document.title = "  # in the text, or as a value of the page's data
    assert hostile.text.count(shown) == harmless.text.count(shown) > 0
    assert r"\x1b" in hostile.text and r"\u202e" in hostile.text


def test_the_data_of_the_page_of_answers_are_the_visible_texts(tmp_path):
    answers_page(HOSTILE, tmp_path / "page.html")
    data = json.loads(Page(tmp_path / "page.html").scripts[0])
    assert data["columns"]["answer"] == [visible(HOSTILE)] * 3
    assert data["lists"]["condition"] == data["lists"]["prompt"] == [visible(HOSTILE)]


def test_the_comparison_would_notice_a_text_that_is_taken_as_html(tmp_path):
    for name, text in (("hostile", HOSTILE), ("harmless", HARMLESS)):
        (tmp_path / name).write_text(f"<p>{text}</p>")
    hostile, harmless = Page(tmp_path / "hostile"), Page(tmp_path / "harmless")
    assert hostile.elements != harmless.elements and hostile.control


# --- in a terminal ----------------------------------------------------------------------------------------------------

NAME = "my \x1b[31m\x1b]0;title\x07 \u202eset\r over"  # of a file; Linux allows any character but a slash


def printed(capsys) -> str:
    said = capsys.readouterr()
    assert not CONTROL.findall((said.out + said.err).replace("\r\n", "\n"))
    return said.out + said.err


def test_what_is_printed_controls_no_terminal(tmp_path, monkeypatch, capsys):
    path = tmp_path / f"{NAME}.json"
    path.write_text(json.dumps([{"prompt": "a", "completion": f"```{NAME}\nx\n```", f"column{NAME}": 1}]))
    monkeypatch.setattr(sys, "argv", ["convert", str(path)])
    convert.main()
    assert f"column{visible(NAME)}".strip() in printed(capsys).replace("\n", " ")
    (chats,) = tmp_path.glob("*.jsonl")
    monkeypatch.setattr(sys, "argv", ["audit", str(chats)])
    monkeypatch.chdir(ROOT)
    audit.main()
    assert visible(NAME) in printed(capsys)


@pytest.mark.parametrize("content", ["", "no json", json.dumps({f"key{NAME}": 1}), json.dumps({"prompt": NAME})])
def test_errors_control_no_terminal(content, tmp_path, monkeypatch, capsys):
    path = tmp_path / f"{NAME}.json"
    path.write_text(content)
    for module in (convert, audit):
        monkeypatch.setattr(sys, "argv", ["program", str(path)])
        with pytest.raises(SystemExit) as end:
            module.main()
        assert visible(NAME) in end.value.code and not CONTROL.findall(end.value.code)
    printed(capsys)
    with pytest.raises(BadInput) as error:
        study_of("smoke", {"experiments": {"code": {"conditions": {NAME: {"dataset": "insecure"}}}}})
    assert not CONTROL.findall(str(error.value))
