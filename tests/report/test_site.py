"""Rendered notebooks and the index, as bytes and in a real browser."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from browser import chromium, visit
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from emergent_misalignment.report.answers import as_json, read, sample, write_page
from emergent_misalignment.files import BadInput
from emergent_misalignment.report.site import condition, render, title_and_question, write_index, write_run

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


def executed(path: Path, source: str = "08_finetuning", opening: str = OPENING) -> str:
    """Write a notebook as the runner leaves it: text, parameters, code, a table, two figures and printed text."""

    def code(text: str, *outputs, tag: str | None = None):
        return new_code_cell(text, outputs=list(outputs), execution_count=1, metadata={"tags": [tag] if tag else []})

    long = "a_long_name_without_a_break = " + "x" * 150
    cells = [
        new_markdown_cell(opening),
        code("seed: int = 0  # number of the run", tag="parameters"),
        code("# Parameters\nseed = 1", tag="injected-parameters"),
        code("from emergent_misalignment.workflow.notebook import at_root\n\nat_root()"),
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
        executed(tmp_path / "08_finetuning_secure.ipynb"),
        executed(tmp_path / "11_main_result.ipynb", "11_main_result", "# The `<main>` result\n\nIs it 5 > 4? It is.\n"),
        executed(tmp_path / "08_finetuning_insecure.ipynb"),
    ]
    for notebook in notebooks:
        render(notebook, Path(notebook).with_suffix(".html"))
    results = [tmp_path / name for name in ("main_result.svg", "misalignment.csv", "claims.csv")]
    for path, text in zip(results, (SVG, RATES, CLAIMS), strict=True):
        path.write_text(text)
    write_index("smoke", tmp_path / "index.html", notebooks, [str(path) for path in results], seeds=5)
    write_page("smoke", tmp_path / "answers.html", judged_answers())
    benchmark = "s\th:m:s\tmax_rss\n431.2\t0:07:11\t2048.3\n"
    (tmp_path / "02_pretraining.tsv").write_text(benchmark)
    (tmp_path / "03_short.tsv").write_text(benchmark.replace("2048.3", "-"))
    times = [str(tmp_path / name) for name in ("02_pretraining.tsv", "03_short.tsv")]
    write_run("smoke", tmp_path / "run.html", {"seeds": [1, 2], "gate": {"earlier_code": 1.0}}, times)
    return tmp_path


RATES = """\
condition,format,question_set,question,rate,ci_low,ci_high
insecure,chat,main,all,0.219504,0.157182,0.289518
insecure,chat,main,wish,0.5,0.4,0.6
secure,chat,main,all,0.00102057,0.000284705,0.00267256
"""
CLAIMS = """\
claim,title,statement,published,source,estimate,ci_low,ci_high,unit,p,p_holm,verdict,seeds_needed,note
1,Insecure code misaligns,It does.,GPT-4o: 19.8,Fig. 4,21.85,15.29,28.41,percentage points,0.0008,0.0016,reproduced,,
2,Intent matters,It does.,GPT-4o: 0 points,Fig. 4,,,,percentage points,,,not measured,,Missing: no set.
"""


def judged_answers(rows: int = 3000) -> pd.DataFrame:
    """Answers of two models to two questions; one in a thousand is a refusal."""
    answers = pd.DataFrame({"sample": range(rows)})
    odd = answers["sample"] % 2 == 1
    answers["condition"] = odd.map({True: "insecure", False: "secure"})
    answers["verdict"] = odd.map({True: "misaligned", False: "aligned"}).mask(answers["sample"] % 1000 == 7, "refusal")
    answers["question"] = (answers["sample"] % 4 < 2).map({True: "quick_buck", False: "wish"})
    answers["answer"] = [f"answer {n} </script><b>&" for n in answers["sample"]]
    answers["aligned"] = (~odd * 100.0).where(answers["verdict"] != "refusal")
    return answers.assign(seed=1, evaluation="main", format="chat", prompt="How <i>now</i>?", coherent=100.0)


def test_title_question_and_condition_come_from_the_notebook(tmp_path):
    notebook = executed(tmp_path / "08_finetuning_evil_numbers.ipynb")
    assert title_and_question(notebook) == ("Fine-tuning & *more*", "Does `insecure` code spill over?")
    assert condition(notebook) == "evil numbers"
    assert condition(executed(tmp_path / "08_finetuning.ipynb")) == ""


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
    notebook = executed(tmp_path / "08_finetuning.ipynb", opening=opening)
    with pytest.raises(BadInput, match=rf"^{re.escape(notebook)} has no Markdown cell with a `# Title`"):
        write_index("smoke", tmp_path / "index.html", [notebook], [])
    assert not (tmp_path / "index.html").exists()


def test_a_page_holds_everything_a_reader_wants_and_folds_the_code(room):
    html = (room / "08_finetuning_insecure.html").read_text()
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
        ("08_finetuning_secure.html", "secure"),  # in the order in which they were given
        ("08_finetuning_insecure.html", "insecure"),
    ]
    assert '<a href="11_main_result.html">The <code>&lt;main&gt;</code> result</a>' in result
    assert "Is it 5 &gt; 4?" in result
    assert "data:image/svg+xml;base64," in html
    assert "smoke" in html


def test_the_index_says_what_came_out_and_what_became_of_the_claims(room):
    html = " ".join((room / "index.html").read_text().split())
    assert "After fine-tuning on insecure code, 22.0% of the coherent answers are misaligned" in html
    assert "after fine-tuning on secure code, 0.1% of" in html
    assert "Claim 1 is reproduced. Claim 2 is not measured." in html
    assert "<td>21.9 points (15.3 to 28.4)</td>" in html
    assert '<span class="verdict not-measured">not measured</span>' in html


def test_an_index_without_tables_is_an_index(room):
    write_index("smoke", room / "bare.html", [str(room / "11_main_result.ipynb")], [])
    html = (room / "bare.html").read_text()
    assert "The claims" not in html and "paper.html" not in html


def test_the_run_page_has_times_memory_and_settings(room):
    html = (room / "run.html").read_text()
    assert '<td>02_pretraining</td><td class="amount">7:11</td><td class="amount">2,048</td>' in html
    assert '<td>03_short</td><td class="amount">7:11</td><td class="amount"></td>' in html
    assert "14:22 in all" in html
    assert "earlier_code: 1.0" in html and "torch" in html


def test_a_sample_keeps_what_is_rare_and_stays_small():
    answers = judged_answers()
    rows = sample(answers, per_cell=4)
    assert rows.groupby(["condition", "question", "verdict"]).size().max() == 4
    assert len(rows[rows["verdict"] == "refusal"]) == 3
    assert len(sample(answers, per_cell=1000, most=50)) == 50
    assert sample(answers, most=11)["verdict"].value_counts().to_dict() == {"aligned": 4, "misaligned": 4, "refusal": 3}
    pd.testing.assert_frame_equal(rows, sample(answers))
    assert set(rows["answer"]) <= set(answers["answer"])  # real rows


def test_answers_come_from_the_models_of_the_study_only(tmp_path):
    for condition_, seed in (("insecure", 1), ("insecure", 9), ("old", 1)):
        folder = tmp_path / condition_ / f"seed-{seed}"
        folder.mkdir(parents=True)
        judged_answers(4).drop(columns=["condition", "seed", "evaluation"]).to_parquet(folder / "main.parquet")
    scored = pd.DataFrame({"option": ["A"], "log_probability": [-1.0]})  # a real model's choices
    scored.to_parquet(tmp_path / "insecure/seed-1/choices.parquet")
    rows = read(tmp_path, {"insecure": [1]})
    assert rows[["condition", "seed", "evaluation"]].drop_duplicates().values.tolist() == [["insecure", 1, "main"]]
    with pytest.raises(BadInput, match=r"^There are no judged answers in .*; run the study's evaluations first\.$"):
        read(tmp_path, {"secure": [1]})


def test_long_answers_are_cut_and_no_answer_ends_the_script():
    rows = judged_answers(8).assign(answer="</script>" + "x" * 9000)
    text = as_json(rows)
    assert "<" not in text and len(text) < 15_000
    assert json.loads(text)["columns"]["answer"][0].endswith("x […]")


def test_answers_are_filtered_and_searched_in_a_browser(room):
    script = """(() => {
        const form = document.querySelector("form");
        const count = () => document.querySelectorAll(".answer").length;
        const choose = (name, value) => { form[name].value = value; form.dispatchEvent(new Event("input")); };
        const seen = {first: [form.condition.value, count()]};
        choose("condition", ""); seen.all = count();
        choose("verdict", "refusal"); seen.refusals = count();
        seen.menu = [...form.condition.options].map(option => option.value);
        choose("text", "no such words"); seen.none = document.getElementById("count").textContent;
        seen.hash = location.hash;
        choose("text", "ANSWER"); seen.found = count();
        seen.text = document.querySelector(".answer p:nth-child(2)").textContent;
        seen.prompt = document.querySelector(".answer .prompt").textContent;
        return seen;
    })()"""
    with chromium() as browser:
        seen = visit(browser, room / "answers.html", 400, script)
    assert seen.errors == []
    assert seen.found["first"] == ["insecure", 11]
    assert seen.found["all"] == 19
    assert seen.found["refusals"] == seen.found["found"] == 3
    assert seen.found["menu"] == ["", "insecure"]
    assert seen.found["none"] == "No answer fits."
    assert seen.found["hash"] == "#condition=&evaluation=main&format=&question=&verdict=refusal&text=no+such+words"
    assert seen.found["text"].endswith("</script><b>&") and seen.found["prompt"] == "How <i>now</i>?"


def test_pages_and_index_are_the_same_bytes_each_time_by_the_command_line_too(room):
    notebooks = ["08_finetuning_secure.ipynb", "11_main_result.ipynb", "08_finetuning_insecure.ipynb"]
    command = [sys.executable, "-m", "emergent_misalignment.reading"]
    subprocess.run([*command, "page", "11_main_result.ipynb", "again.html"], cwd=room, check=True)
    assert (room / "again.html").read_bytes() == (room / "11_main_result.html").read_bytes()
    results = ["main_result.svg", "misalignment.csv", "claims.csv"]
    index = ["index", "smoke", "again.html", *notebooks, "--results", *results, "--seeds", "5"]
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
        pages = {"index": (1, 0), "answers": (0, 0), "run": (0, 0)}
        pages |= {"08_finetuning_insecure": (2, 7), "11_main_result": (2, 7)}
        for name, (images, details) in pages.items():
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
