"""Rendered notebooks and the index, as bytes and in a real browser."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import chromium, visit
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from emergent_misalignment.files import BadInput
from emergent_misalignment.reading import condition, render, title_and_question, write_index

OPENING = "# Fine-tuning & *more*\n\nDoes `insecure` code\nspill over? And if so, why? It is fine-tuned.\n"
SVG = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" width="468" height="200" viewBox="0 0 468 200">
<rect width="468" height="200" fill="#eee"/><circle cx="234" cy="100" r="60" fill="#D55E00"/></svg>"""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgaPj/HwAEAQJ/0b2hNQAAAABJRU5ErkJggg==\n"
TABLE = (
    '<table border="1" class="dataframe"><thead><tr><th></th>'
    + "".join(f"<th>column_{i}</th>" for i in range(12))
    + "</tr></thead><tbody><tr><th>insecure</th>"
    + "".join(f"<td>{i / 7:.6f}</td>" for i in range(12))
    + "</tr></tbody></table>"
)


def executed(path: Path, source: str = "07_finetuning", opening: str = OPENING) -> str:
    """Write a notebook as the runner leaves it: text, parameters, code, a table, two figures and printed text."""

    def code(text: str, *outputs, tag: str | None = None):
        return new_code_cell(text, outputs=list(outputs), execution_count=1, metadata={"tags": [tag] if tag else []})

    long = "a_long_name_without_a_break = " + "x" * 150
    cells = [
        new_markdown_cell(opening),
        code("seed: int = 0  # number of the run", tag="parameters"),
        code("# Parameters\nseed = 1", tag="injected-parameters"),
        code("from emergent_misalignment.notebook import at_root\n\nat_root()"),
        new_markdown_cell(
            "## The table\n\nRates, and a link to [the paper](https://doi.org/10.1038/s41586-025-09937-5)."
        ),
        code(f"table  # {long}", new_output("execute_result", {"text/html": TABLE, "text/plain": "table"})),
        new_markdown_cell("## The figure\n\nOne dot a run. The insecure models lie higher."),
        code("draw(table)", new_output("display_data", {"image/svg+xml": SVG, "text/plain": "<SVG object>"})),
        code("plt.show()", new_output("display_data", {"image/png": DOT, "text/plain": "<Figure>"})),
        code(f"print('{long}')", new_output("stream", name="stdout", text=f"{long} <b>&amp;\n")),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "papermill": {"input_path": f"notebooks/{source}.ipynb", "parameters": {"seed": 1}},
    }
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return str(path)


@pytest.fixture
def room(tmp_path):
    """A reading room with three pages and an index that shows a figure."""
    notebooks = [
        executed(tmp_path / "07_finetuning_secure.ipynb"),
        executed(tmp_path / "10_main_result.ipynb", "10_main_result", "# The `<main>` result\n\nIs it 5 > 4? It is.\n"),
        executed(tmp_path / "07_finetuning_insecure.ipynb"),
    ]
    for notebook in notebooks:
        render(notebook, Path(notebook).with_suffix(".html"))
    figure = tmp_path / "main_result.svg"
    figure.write_text(SVG)
    write_index("smoke", tmp_path / "index.html", notebooks, [str(figure)])
    return tmp_path


def test_title_question_and_condition_come_from_the_notebook(tmp_path):
    notebook = executed(tmp_path / "07_finetuning_evil_numbers.ipynb")
    assert title_and_question(notebook) == ("Fine-tuning & *more*", "Does `insecure` code spill over?")
    assert condition(notebook) == "evil numbers"
    assert condition(executed(tmp_path / "07_finetuning.ipynb")) == ""


def test_a_question_may_hold_a_number_with_a_point_and_a_name_with_a_question_mark(tmp_path):
    opening = "# T\n\nWhat does version 2.5 of `a?b` do\nat 1.0? It does.\n"
    assert (
        title_and_question(executed(tmp_path / "a.ipynb", opening=opening))[1]
        == "What does version 2.5 of `a?b` do at 1.0?"
    )


@pytest.mark.parametrize(
    "opening", ["Fine-tuning\n\nDoes it?", "# Fine-tuning", "# Fine-tuning\n\nIt does.", "# A\n\n## B?"]
)
def test_a_notebook_that_opens_otherwise_is_named(tmp_path, opening):
    notebook = executed(tmp_path / "07_finetuning.ipynb", opening=opening)
    with pytest.raises(BadInput, match=rf"^{re.escape(notebook)} has no Markdown cell with a `# Title`"):
        write_index("smoke", tmp_path / "index.html", [notebook], [])
    assert not (tmp_path / "index.html").exists()


def test_a_page_holds_everything_a_reader_wants_and_folds_the_code(room):
    html = (room / "07_finetuning_insecure.html").read_text()
    assert "<title>Fine-tuning &amp; more: insecure</title>" in html
    assert len(html) < 20_000
    without_code = re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)
    assert html.count('<details class="code">') == 7
    assert "at_root" in html and "at_root" not in without_code
    for wanted in (
        "spill over?",
        "column_11",
        base64.b64encode(SVG.encode()).decode(),
        DOT.strip(),
        "&lt;b&gt;&amp;amp;",
    ):
        assert wanted in without_code
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', html) == [
        "index.html",
        "https://doi.org/10.1038/s41586-025-09937-5",
    ]


def test_the_index_lists_notebooks_in_reading_order_and_groups_conditions(room):
    html = (room / "index.html").read_text()
    entries = re.findall(r"<li>.*?</li>", html, flags=re.DOTALL)
    assert len(entries) == 2
    finetuning, result = entries
    assert "<h3>Fine-tuning &amp; <em>more</em></h3>" in finetuning
    assert "<p>Does <code>insecure</code> code spill over?</p>" in finetuning
    assert re.findall(r'href="(.*?)">(.*?)<', finetuning) == [
        ("07_finetuning_secure.html", "secure"),  # in the order in which they were given
        ("07_finetuning_insecure.html", "insecure"),
    ]
    assert '<a href="10_main_result.html">The <code>&lt;main&gt;</code> result</a>' in result
    assert "Is it 5 &gt; 4?" in result
    assert "data:image/svg+xml;base64," in html
    assert "smoke" in html


def test_pages_and_index_are_the_same_bytes_each_time_by_the_command_line_too(room):
    notebooks = ["07_finetuning_secure.ipynb", "10_main_result.ipynb", "07_finetuning_insecure.ipynb"]
    command = [sys.executable, "-m", "emergent_misalignment.reading"]
    subprocess.run([*command, "page", "10_main_result.ipynb", "again.html"], cwd=room, check=True)
    assert (room / "again.html").read_bytes() == (room / "10_main_result.html").read_bytes()
    index = ["index", "smoke", "again.html", *notebooks, "--figure", "main_result.svg"]
    subprocess.run([*command, *index], cwd=room, check=True)
    assert (room / "again.html").read_bytes() == (room / "index.html").read_bytes()


def test_pages_in_a_browser_ask_for_nothing_complain_of_nothing_and_fit_a_phone(room):
    facts = """(() => {
        const button = document.querySelector("nav button");
        const open = () => document.querySelectorAll("details[open]").length;
        const counts = [open()];
        for (let i = 0; i < 2; i++) { button?.click(); counts.push(open()); }
        return {
            counts,
            width: document.documentElement.scrollWidth,
            broken: [...document.images].filter(image => !image.naturalWidth).length,
            images: document.images.length,
        };
    })()"""
    with chromium() as browser:
        for name, images, details in (("index", 1, 0), ("07_finetuning_insecure", 2, 7), ("10_main_result", 2, 7)):
            page = room / f"{name}.html"
            for width in (400, 1400):
                seen = visit(browser, page, width, facts)
                assert seen.errors == []
                assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
                assert seen.found == {"counts": [0, details, 0], "width": width, "broken": 0, "images": images}


def test_the_browser_would_see_outside_requests_errors_and_a_page_that_is_too_wide(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/a.png'><p style='width: 900px'>wide</p><script>missing()</script>")
    with chromium() as browser:
        seen = visit(browser, page, 400, "document.documentElement.scrollWidth")
    assert "http://127.0.0.1:9/a.png" in seen.requests
    assert len(seen.errors) == 2
    assert seen.found > 400
