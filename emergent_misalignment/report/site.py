"""The reading room: executed notebooks as self-contained pages, and an index that says what to read in which order.

    python -m emergent_misalignment.report.site page NOTEBOOK.ipynb PAGE.html
    python -m emergent_misalignment.report.site index STUDY INDEX.html NOTEBOOK.ipynb ... --results FILE ... --seeds N
    python -m emergent_misalignment.report.site run STUDY RUN.html CONFIG_JSON [BENCHMARK.tsv ...]

Nothing in them is fetched from anywhere. The same notebooks give the same bytes, but for the page of the run, which
alone has times and versions.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import nbformat
import pandas as pd
import yaml

from emergent_misalignment.report.claims_table import read_claims, tally_by_title
from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.report.pages import TEMPLATES, data_uri, template

# What decides the numbers, and what a bug report should name.
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "scipy", "statsmodels", "snakemake", "papermill")


def render(notebook: str | Path, page: str | Path) -> None:
    """Write an executed notebook as an HTML page with its code folded away."""
    from nbconvert import HTMLExporter  # half a second that the index does without

    executed = nbformat.read(notebook, as_version=4)
    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=[str(TEMPLATES)],
        extra_template_paths=[str(TEMPLATES)],  # of style.css
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    title, _ = title_and_question(notebook)
    plain = re.sub("[*`]", "", title)
    html, _ = exporter.from_notebook_node(executed, {"title": plain, "condition": condition(notebook)})
    _write(page, html)


def write_index(study: str, index: str | Path, notebooks: list[str], results: list[str], seeds: int = 0) -> None:
    """Write the page from which a reader starts: what is asked, what came out, and the notebooks in reading order.

    `results` are figures, which are shown, and the tables `misalignment.csv`, from which the answer comes, `claims.csv`
    and a paper, where there are such. A notebook that ran once per condition is one entry with a link for each. The
    page of a notebook is expected beside it, under the same name, and answers.html and run.html beside the index.
    """
    entries = []
    for source, group in groupby(sorted(notebooks, key=_source_name), key=_source_name):
        runs = list(group)
        title, question = title_and_question(runs[0])
        number = re.match(r"\d*", source).group()
        pages = [(condition(run), os.path.relpath(Path(run).with_suffix(".html"), Path(index).parent)) for run in runs]
        entries.append({"number": number, "title": title, "question": question, "pages": pages})
    by_name = {Path(path).name: path for path in results}
    pictures = [path for path in results if path.endswith(".svg")]
    claims = read_claims(by_name["claims.csv"]) if "claims.csv" in by_name else {}
    paper = by_name.get("paper.html")
    html = template("index.html.j2").render(
        study=study,
        seeds=seeds,
        answer=_answer(by_name["misalignment.csv"]) if "misalignment.csv" in by_name else "",
        figures=[{"name": Path(path).stem.replace("_", " "), "uri": data_uri(path)} for path in pictures],
        claims=list(claims.values()),
        tally=tally_by_title(claims),
        entries=entries,
        papers=os.path.relpath(Path(paper).parent, Path(index).parent) if paper else "",
    )
    _write(index, html)


def _answer(table: str) -> str:
    """The main result in a sentence, from `tables/misalignment.csv`."""
    rates = pd.read_csv(table)
    rates = rates[(rates["question"] == "all") & (rates["question_set"] == "main") & (rates["format"] == "chat")]
    said = [
        f"after fine-tuning on {row.condition} code, {row.rate:.1%} of the coherent answers are misaligned "
        f"(95% interval {row.ci_low:.1%} to {row.ci_high:.1%})"
        for row in rates[rates["condition"].isin(["insecure", "secure"]) & rates["rate"].notna()].itertuples()
    ]
    sentence = "; ".join(said) or "too few answers are coherent to say"
    return f"{sentence[:1].upper()}{sentence[1:]}."


def title_and_question(notebook: str | Path) -> tuple[str, str]:
    """The title of a notebook and the question with which its first paragraph begins, both as Markdown.

    Raises BadInput if the notebook does not open in this way.
    """
    for cell in nbformat.read(notebook, as_version=4).cells:
        if opening := re.match(r"# +(.+?) *\n\s*([^#\s].*?\?)(?=\s|$)", cell.source, flags=re.DOTALL):
            title, question = opening.groups()
            return title, " ".join(question.split())
    raise BadInput(
        f"{notebook} has no Markdown cell with a `# Title` and a paragraph that begins with a question; add it."
    )


def condition(notebook: str | Path) -> str:
    """What the name of an executed notebook adds to its source's, as in 08_finetuning_insecure; empty if nothing."""
    return Path(notebook).stem.removeprefix(_source_name(notebook)).strip("_").replace("_", " ")


def _source_name(notebook: str | Path) -> str:
    executed = nbformat.read(notebook, as_version=4)
    return Path(executed.metadata.get("papermill", {}).get("input_path", notebook)).stem


def write_run(study: str, page: str | Path, config: dict, benchmarks: list[str]) -> None:
    """Write the page that says with what versions, on what machine, how long and under what settings a study ran.

    `benchmarks` are the files that Snakemake writes for a rule's `benchmark`.
    """
    commit = ""
    with suppress(OSError, subprocess.CalledProcessError):
        described = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(described, check=True, capture_output=True, text=True).stdout.strip()
    versions = [("commit", commit)] if commit else []
    versions += [("Python", platform.python_version()), ("system", platform.platform()), ("cores", os.cpu_count())]
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append((name, importlib.metadata.version(name)))
    measured = [(Path(path).stem, pd.read_csv(path, sep="\t").iloc[0]) for path in sorted(benchmarks)]
    times = [(name, _clock(row["s"]), _megabytes(row["max_rss"])) for name, row in measured]
    html = template("run.html.j2").render(
        study=study,
        seeds=", ".join(map(str, config.get("seeds", []))),
        versions=versions,
        times=times,
        total=_clock(sum(row["s"] for _, row in measured)),
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    )
    _write(page, html)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _megabytes(value) -> str:
    """What Snakemake measured of a job's memory; a job that was over at once has no figure."""
    number = pd.to_numeric(value, errors="coerce")
    return "" if pd.isna(number) else f"{number:,.0f}"


def _write(path: str | Path, html: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.report.site", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page", help="render an executed notebook")
    page.add_argument("notebook")
    page.add_argument("page")
    index = commands.add_parser("index", help="write the page from which a reader starts")
    index.add_argument("study")
    index.add_argument("index")
    index.add_argument("notebooks", nargs="+")
    index.add_argument("--results", nargs="*", default=[], help="figures, tables and the paper")
    index.add_argument("--seeds", type=int, default=0, help="training runs a condition")
    run = commands.add_parser("run", help="write the page with times, versions and settings")
    run.add_argument("study")
    run.add_argument("page")
    run.add_argument("config", type=json.loads)
    run.add_argument("benchmarks", nargs="*")
    given = parser.parse_args()
    try:
        if given.command == "page":
            render(given.notebook, given.page)
        elif given.command == "index":
            write_index(given.study, given.index, given.notebooks, given.results, given.seeds)
        else:
            write_run(given.study, given.page, given.config, given.benchmarks)
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
