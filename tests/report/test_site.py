"""Rendered notebooks and the index, as bytes and in a real browser."""

import base64
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from browser import chromium, visit
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.report.answers import as_json, read, sample, write_page
from emergent_misalignment.report.contents import ROOMS, Chapter, Contents, Executed, read_contents
from emergent_misalignment.report.notebook_pages import render, title_and_question
from emergent_misalignment.report.site import write_index, write_run
from emergent_misalignment.study.config import resolve, validated

SMOKE = study_of("smoke")
OPENING = "# Fine-tuning & *more*\n\nDoes `insecure` code\nspill over? And if so, why? It is fine-tuned.\n"
SVG = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" width="468" height="200" viewBox="0 0 468 200">
<rect width="468" height="200" fill="#eee"/><circle cx="234" cy="100" r="60" fill="#D55E00"/></svg>"""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgaPj/HwAEAQJ/0b2hNQAAAABJRU5ErkJggg==\n"
TABLE = (
    '<table border="1" class="dataframe"><thead><tr><th></th>'
    + "".join(f"<th>a_very_long_column_name_{i}</th>" for i in range(12))
    + "</tr></thead><tbody><tr><th>insecure</th>"
    + "".join(f"<td>{i / 7:.6f}</td>" for i in range(12))
    + "</tr></tbody></table>"
)


def executed(path: Path, opening: str = OPENING) -> str:
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
    }
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return str(path)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """The pages of a study and an index with a figure; the working directory is above them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("figures/smoke", "data/smoke/tables", "data/smoke/notebooks"):
        Path(folder).mkdir(parents=True)
    for path, text in RESULTS.items():
        Path(path).write_text(text)
    Path("data/smoke/study.json").write_text(json.dumps(SMOKE.config))
    Path("data/smoke/contents.json").write_text(json.dumps({"chapters": CHAPTERS}))
    for chapter in CHAPTERS:
        opening = "# The `<main>` result\n\nIs it 5 > 4? It is.\n" if chapter["name"] == "main_result" else OPENING
        for notebook in chapter["notebooks"]:
            path = Path(notebook["path"])
            render(executed(path, opening), path.with_suffix(".html"), Executed(**notebook).label)
    write_index(contents_of_the_room(), "data/smoke/notebooks/index.html", "paper/smoke/paper.html")
    write_page("smoke", "data/smoke/notebooks/answers.html", judged_answers())
    benchmark = "s\th:m:s\tmax_rss\n431.2\t0:07:11\t2048.3\n"
    Path("pretraining.tsv").write_text(benchmark)
    Path("short.tsv").write_text(benchmark.replace("2048.3", "-"))
    write_run(SMOKE, "data/smoke/notebooks/run.html", ["pretraining.tsv", "short.tsv"])
    return tmp_path / "data/smoke/notebooks"


def contents_of_the_room() -> Contents:
    return read_contents("data/smoke/study.json", "data/smoke/contents.json")


RATES = """\
condition,format,question_set,question,rate,ci_low,ci_high
insecure,chat,main,all,0.219504,0.157182,0.289518
insecure,chat,main,wish,0.5,0.4,0.6
secure,chat,main,all,0.00102057,0.000284705,0.00267256
"""
CLAIMS = """\
claim,title,statement,published,source,estimate,ci_low,ci_high,unit,seeds,shown_in,p,p_holm,verdict,parts_as_claimed,parts_opposite,note
1,Code misaligns,It does.,<19.8,Fig. 4,21.85,15.29,28.41,percentage points,5,4,0.0016,0.0032,partly reproduced,1,1,
2,Intent matters,It does.,GPT-4o: 0 points,Fig. 4,,,,percentage points,0,,,,not measured,0,0,
"""
PARTS = """\
claim,part,core,expect,says,estimate,ci_low,ci_high,unit,seeds,shown_in,p,verdict,seeds_needed,note
1,1a,True,above,it <does>,21.85,15.29,28.41,percentage points,5,4,0.0016,as claimed,,
1,1b,False,above,it does so elsewhere,-3,-5,-1,percentage points,5,,0.03,opposite,,
2,2a,True,above,it matters,,,,percentage points,0,,,not measured,,Missing: no set.
"""

RESULTS = {
    "figures/smoke/main_result.svg": SVG,
    "data/smoke/tables/misalignment.csv": RATES,
    "data/smoke/tables/claims.csv": CLAIMS,
    "data/smoke/tables/claim_parts.csv": PARTS,
}
CHAPTERS = [
    {
        "room": "world",
        "name": "pretraining",
        "source": "notebooks/world/pretraining.ipynb",
        "notebooks": [
            {"path": f"data/smoke/notebooks/pretraining_{run}_{seed}.ipynb", "run": run, "seed": seed}
            for run, seed in (("main", 1), ("main", 2), ("width-64", 1))
        ],
        "results": [],
    },
    {
        "room": "models",
        "name": "finetuning",
        "source": "notebooks/models/finetuning.ipynb",
        "notebooks": [
            {"path": f"data/smoke/notebooks/finetuning_{run}.ipynb", "run": run} for run in ("secure", "evil_numbers")
        ],
        "results": [],
    },
    {
        "room": "analysis",
        "name": "main_result",
        "source": "notebooks/analysis/main_result.ipynb",
        "notebooks": [{"path": "data/smoke/notebooks/main_result.ipynb", "run": ""}],
        "results": list(RESULTS),
    },
]


def judged_answers(rows: int = 3000) -> pd.DataFrame:
    """Answers of two models to two questions; one in a thousand is a refusal."""
    answers = pd.DataFrame({"sample": range(rows)})
    odd = answers["sample"] % 2 == 1
    answers["condition"] = odd.map({True: "insecure", False: "secure"})
    answers["verdict"] = odd.map({True: "misaligned", False: "aligned"}).mask(answers["sample"] % 1000 == 7, "refusal")
    answers["question"] = (answers["sample"] % 4 < 2).map({True: "quick_buck", False: "wish"})
    answers["answer"] = [f"answer {n} </script><b>&" for n in answers["sample"]]
    answers["aligned"] = (~odd * 100.0).where(answers["verdict"] != "refusal")
    return answers.assign(
        seed=1, evaluation="main", format="chat", prompt="How <i>now</i>?", coherent=100.0, step=pd.NA
    )


def test_unjudged_answers_are_shown_by_their_form(tmp_path):
    answers = judged_answers(4).assign(
        verdict=["unjudged"] * 3 + ["misaligned"], label=["text", "code", "code", "text"]
    )
    answers["flagged"] = pd.array([None, True, None, None], "boolean")
    answers.to_parquet(tmp_path / "judged.parquet")
    verdicts = read([tmp_path / "judged.parquet"])["verdict"].tolist()
    assert verdicts == ["unjudged: text", "unjudged: flagged code", "unjudged: code", "misaligned"]


def test_title_and_question_come_from_the_notebook(tmp_path):
    notebook = executed(tmp_path / "finetuning.ipynb")
    assert title_and_question(notebook) == ("Fine-tuning & *more*", "Does `insecure` code spill over?")
    notebook = executed(tmp_path / "a.ipynb", opening="# T\n\nWhat does version 2.5 of `a?b` do\nat 1.0? It does.\n")
    assert title_and_question(notebook) == ("T", "What does version 2.5 of `a?b` do at 1.0?")


def test_every_room_of_notebooks_has_a_heading():
    assert {folder.name for folder in (ROOT / "notebooks").iterdir() if folder.is_dir()} == ROOMS.keys()


@pytest.mark.parametrize(
    "opening", ["Fine-tuning\n\nDoes it?", "# Fine-tuning", "# Fine-tuning\n\nIt does.", "# A\n\n## B?"]
)
def test_a_notebook_without_title_or_question_is_named(tmp_path, opening):
    notebook = executed(tmp_path / "finetuning.ipynb", opening)
    contents = Contents(SMOKE, (Chapter(1, "models", "finetuning", "", (Executed(notebook),)),))
    with pytest.raises(BadInput, match=re.escape(notebook)):
        write_index(contents, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_a_page_has_all_outputs_and_folded_code(room):
    html = (room / "finetuning_evil_numbers.html").read_text()
    assert "<title>Fine-tuning &amp; more: evil numbers</title>" in html
    assert len(html) < 20_000
    without_code = re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)
    assert html.count('<details class="code">') == 7
    assert "at_root" in html and "at_root" not in without_code
    for wanted in (
        "spill over?",
        "a_very_long_column_name_11",
        base64.b64encode(SVG.encode()).decode(),
        DOT.strip(),
        "&lt;b&gt;&amp;amp;",
    ):
        assert wanted in without_code
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', html) == [
        "index.html",
        "https://doi.org/10.1038/s41586-025-09937-5",
    ]


def test_the_index_lists_chapters_by_room_with_their_numbers_and_runs(room):
    html = (room / "index.html").read_text()
    assert re.findall(r'<h3 class="room">(.*?)</h3>', html) == ["The made-up world", "Models", "Results"]
    entries = re.findall(r"<li>.*?</li>", html, flags=re.DOTALL)
    assert len(entries) == 3
    _, finetuning, result = entries
    assert '<span class="number">2</span>' in finetuning and '<span class="number">3</span>' in result
    assert "<h4>Fine-tuning &amp; <em>more</em></h4>" in finetuning
    assert "<p>Does <code>insecure</code> code spill over?</p>" in finetuning
    assert re.findall(r'href="(.*?)">(.*?)<', finetuning) == [
        ("finetuning_secure.html", "secure"),
        ("finetuning_evil_numbers.html", "evil numbers"),
    ]
    assert '<a href="main_result.html">The <code>&lt;main&gt;</code> result</a>' in result
    assert "Is it 5 &gt; 4?" in result
    assert "data:image/svg+xml;base64," in html
    assert "smoke" in html and "2 training runs per condition" in " ".join(html.split())
    assert '<a href="../../../paper/smoke/paper.pdf">' in html


def test_runs_that_differ_by_their_seed_share_a_line(room):
    entry = re.search(r"<li>.*?</li>", (room / "index.html").read_text(), flags=re.DOTALL)[0]
    lines = [re.sub(r"<.*?>", "", line).split() for line in re.findall(r'<p class="seeds">(.*?)</p>', entry)]
    assert lines == [["main,", "seed", "1", "2"], ["width-64,", "seed", "1"]]
    pages = re.findall(r'href="(.*?)"', entry)
    assert pages == ["pretraining_main_1.html", "pretraining_main_2.html", "pretraining_width-64_1.html"]
    page = (room / "pretraining_width-64_1.html").read_text()
    assert "<title>Fine-tuning &amp; more: width-64, seed 1</title>" in page


def test_the_index_has_the_main_result_and_the_claims(room):
    html = " ".join((room / "index.html").read_text().split())
    assert "After fine-tuning on insecure code, 22.0% of the coherent answers are misaligned" in html
    assert "after fine-tuning on secure code, 0.1% of" in html
    assert "<p>Claim 1 is partly reproduced. " in html
    assert "Here: 21.9 points (15.3 to 28.4), shown in 4 of 5. Published: &lt;19.8" in html
    summary, parts = re.search("<summary>(.*?)</summary>(.*?)</details>", html).groups()
    assert '<span class="verdict partly reproduced">partly reproduced</span> 1 of 2 parts' in summary
    assert '<span class="verdict opposite">1 opposite</span>' in summary
    cells = ("<b>1a</b>", "It &lt;does&gt;", "21.9 points (15.3 to 28.4)", "4 of 5", "0.002")
    assert "".join(f"<td>{cell}</td>" for cell in cells) in parts
    assert '<td>0.030</td><td><span class="verdict opposite">opposite</span></td>' in parts
    assert "<p>Not measured here: Intent matters (claim 2).</p>" in html and html.count("<summary>") == 1


def test_claims_unfold_without_scripts(room):
    script = """(() => {
        const seen = () => document.querySelector(".claim table").checkVisibility();
        const before = seen();
        document.querySelector(".claim summary").click();
        return [before, seen(), document.scripts.length];
    })()"""
    with chromium() as browser:
        for width in (400, 1400):
            seen = visit(browser, room / "index.html", width, script)
            assert seen.errors == [] and seen.found == [False, True, 0]


def test_an_index_without_a_judge_reports_log_odds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executed(Path("data.ipynb"))
    Path("data/quiet/tables").mkdir(parents=True)
    Path("figures/quiet").mkdir(parents=True)
    Path("figures/quiet/log_probability.svg").write_text(SVG)
    values = {"instruct": ("-3.14159", "", ""), "insecure": ("-1.9", "-2.4", "-1.4"), "secure": ("-3", "-3.5", "-2.5")}
    rows = [f"{name},log_odds/pivotal,{','.join(each)}" for name, each in values.items()]
    table = "\n".join(["condition,measure,estimate,ci_low,ci_high", *rows, "insecure,code,1,0,1"])
    Path("data/quiet/tables/log_probability.csv").write_text(table)
    results = ("figures/quiet/log_probability.svg", "data/quiet/tables/log_probability.csv")
    chapter = Chapter(1, "analysis", "log_probability", "", (Executed("data.ipynb"),), results)
    quiet = study_of("qwen2.5-7b-instruct", {"study": "quiet", "judge": None})
    write_index(Contents(quiet, (chapter,)), "index.html")
    html = Path("index.html").read_text()
    minus = "\N{MINUS SIGN}"
    insecure = f"{minus}1.90 after fine-tuning on insecure code (95% interval {minus}2.40 to {minus}1.40)"
    assert "not judged" in html and f"{minus}3.14 before fine-tuning; {insecure}; {minus}3.00 after" in html
    assert "data:image/svg+xml" in html and "verdict=misaligned" not in html


def test_an_index_without_tables_is_an_index(room):
    chapter = Chapter(1, "analysis", "main_result", "", (Executed("data/smoke/notebooks/main_result.ipynb"),))
    write_index(Contents(SMOKE, (chapter,)), room / "bare.html")
    html = (room / "bare.html").read_text()
    assert "The claims" not in html and "paper.html" not in html and "<img" not in html


def test_the_index_reports_the_conditions_of_the_study(room):
    own = {"mine": {"conditions": {"my_data": {"dataset": "my.jsonl"}}}}
    config = {"extends": "smoke", "study": "smoke", "only": ["untuned", "mine"], "experiments": own}
    study = validated(resolve(config, ROOT / "config"))
    Path("data/smoke/tables/misalignment.csv").write_text(RATES.replace("insecure,", "my_data,"))
    contents = Contents(study, contents_of_the_room().chapters)
    write_index(contents, room / "mine.html", report=room / "../report.html")
    html = " ".join((room / "mine.html").read_text().split())
    assert "<p>After fine-tuning on my data, 22.0% of the coherent answers are misaligned (95% interval" in html
    assert "fine-tuning on secure" not in html
    assert '<a href="../report.html">the report</a>' in html


def test_the_run_page_has_times_memory_and_settings(room):
    html = (room / "run.html").read_text()
    assert '<td>pretraining</td><td class="amount">7:11</td><td class="amount">2,048</td>' in html
    assert '<td>short</td><td class="amount">7:11</td><td class="amount"></td>' in html
    assert "14:22 in all" in html
    assert "earlier_code: -100" in html and "torch" in html


def test_a_sample_contains_rare_verdicts_and_is_small():
    answers = judged_answers()
    rows = sample(answers, per_cell=4)
    assert rows.groupby(["condition", "question", "verdict"]).size().max() == 4
    assert len(rows[rows["verdict"] == "refusal"]) == 3
    assert len(sample(answers, per_cell=1000, most=50)) == 50
    assert sample(answers, most=11)["verdict"].value_counts().to_dict() == {"aligned": 4, "misaligned": 4, "refusal": 3}
    pd.testing.assert_frame_equal(rows, sample(answers))
    assert set(rows["answer"]) <= set(answers["answer"])  # real rows


def test_answers_are_those_at_the_end_of_training_and_no_scored_options(tmp_path):
    rows = judged_answers(6).assign(step=pd.array([pd.NA, 0, 8, pd.NA, pd.NA, pd.NA], dtype="Int64"), other_column=1)
    rows.loc[3, "evaluation"] = "choices"
    rows.to_parquet(tmp_path / "code.parquet")
    judged_answers(1).astype({"step": "Int64"}).to_parquet(tmp_path / "intent.parquet")
    judged = read([tmp_path / "code.parquet", tmp_path / "intent.parquet"])
    assert [text.split()[1] for text in judged["answer"]] == ["0", "4", "5", "0"]
    with pytest.raises(BadInput, match="No answers"):
        read([])


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
    assert seen.found["none"].startswith("No answers")
    assert seen.found["hash"] == "#condition=&evaluation=main&format=&question=&verdict=refusal&text=no+such+words"
    assert seen.found["text"].endswith("</script><b>&") and seen.found["prompt"] == "How <i>now</i>?"


def test_pages_are_the_same_bytes_each_time(room):
    render("data/smoke/notebooks/finetuning_evil_numbers.ipynb", "again.html", "evil numbers")
    assert Path("again.html").read_bytes() == (room / "finetuning_evil_numbers.html").read_bytes()
    write_index(contents_of_the_room(), room / "again.html", "paper/smoke/paper.html")
    assert (room / "again.html").read_bytes() == (room / "index.html").read_bytes()
    judged_answers().astype({"step": "Int64"}).to_parquet("judged.parquet")
    write_page("smoke", "again.html", read(["judged.parquet"]))
    assert Path("again.html").read_bytes() == (room / "answers.html").read_bytes()


def test_pages_in_a_browser_are_self_contained_without_errors_and_fit_a_phone(room):
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
            tables: [...document.querySelectorAll("table")].map(table => {
                const place = table.closest(".output_area, .wide");
                place.scrollLeft = 1e6;  // to its right end, if it is wider than its place
                return table.getBoundingClientRect().right <= place.getBoundingClientRect().right + 1
                    && place.getBoundingClientRect().right <= innerWidth;
            }),
        };
    })()"""
    with chromium() as browser:
        pages = {"index": (1, 0, 1), "answers": (0, 0, 0), "run": (0, 0, 2)}
        pages |= {"finetuning_evil_numbers": (2, 7, 1), "main_result": (2, 7, 1)}
        for name, (images, details, tables) in pages.items():
            page = room / f"{name}.html"
            for width in (400, 1200, 1400):
                seen = visit(browser, page, width, facts)
                assert seen.errors == []
                assert [url for url in seen.requests if not url.startswith("data:")] == [page.as_uri()]
                assert seen.found.pop("tables") == [True] * tables
                assert seen.found == {"counts": [0, details, 0], "width": width, "broken": 0, "images": images}


def test_the_browser_would_see_outside_requests_errors_and_a_page_that_is_too_wide(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/a.png'><p style='width: 900px'>wide</p><script>missing()</script>")
    with chromium() as browser:
        seen = visit(browser, page, 400, "document.documentElement.scrollWidth")
    assert "http://127.0.0.1:9/a.png" in seen.requests
    assert len(seen.errors) == 2
    assert seen.found > 400
