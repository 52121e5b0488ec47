"""Write the pages of a study: executed notebooks, the index, and run details.

    python -m emergent_misalignment.report.site page NOTEBOOK.ipynb PAGE.html [--run NAME]
    python -m emergent_misalignment.report.site index CONTENTS.json INDEX.html [--paper PAGE] [--report PAGE]
    python -m emergent_misalignment.report.site run CONTENTS.json RUN.html [BENCHMARK.tsv ...]

Pages are self-contained. The same input gives the same bytes, except for the page of run details, which has times and
versions.
"""

import argparse
import importlib.metadata
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

from emergent_misalignment.analysis.formatting import numbers, readable
from emergent_misalignment.files import BadInput
from emergent_misalignment.report.claims_table import read_claims, tally_by_title, unfolding, unmeasured
from emergent_misalignment.report.contents import ROOMS, Contents, read_contents
from emergent_misalignment.report.pages import TEMPLATES, data_uri, template, write

# Packages that affect the results; their versions are listed on the page of run details.
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "scipy", "statsmodels", "snakemake", "papermill")
MAIN_FIGURES = ("main_result", "log_probability")  # the index shows the first that a study has


def render(notebook: str | Path, page: str | Path, run: str = "") -> None:
    """Write an executed notebook as an HTML page with folded code; `run` is its label if there are several runs."""
    from nbconvert import HTMLExporter  # slow to import, and not needed for the index

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
    html, _ = exporter.from_notebook_node(executed, {"title": plain, "run": run})
    write(page, html)


def write_index(contents: Contents, index: str | Path, paper: str = "", report: str = "") -> None:
    """Write the start page: the question, the main result, the claims, and the notebooks in reading order.

    A chapter with several runs is one entry with a link per run; runs that differ only by their seed share a line. The
    page of a notebook is expected next to it, under the same name, and answers.html and run.html next to the index.
    `report` is the page on the user's own sets, if there is one.
    """
    rooms = [
        (ROOMS[room], [_entry(chapter, Path(index).parent) for chapter in chapters])
        for room, chapters in groupby(contents.chapters, key=lambda chapter: chapter.room)
    ]
    claims_table, answer = contents.table("claims"), ""
    if rates := contents.table("misalignment"):
        answer = _answer(rates, contents.config)
    elif log_odds := contents.table("log_probability"):
        answer = _by_log_probability(log_odds, contents.config)
    figure = next((name for name in MAIN_FIGURES if name in contents.figures), "")
    claims = read_claims(claims_table, contents.table("claim_parts")) if claims_table else {}
    measured = {number: claim for number, claim in claims.items() if claim.measured}
    html = template("index.html.j2").render(
        study=contents.study,
        seeds=contents.seeds,
        trained=_trains(contents.config),
        organism=contents.kind == "organism",
        judged=bool(contents.config.get("judge")),
        answer=answer,
        figure=data_uri(contents.figures[figure]) if figure else "",
        claims=unfolding(measured),
        unmeasured=unmeasured(claims),
        tally=tally_by_title(measured),
        rooms=rooms,
        report=os.path.relpath(report, Path(index).parent) if report else "",
        papers=os.path.relpath(Path(paper).parent, Path(index).parent) if paper else "",
    )
    write(index, html)


def _trains(config: dict) -> bool:
    """Whether the study fine-tunes anything."""
    experiments = config.get("experiments", {}).values()
    conditions = [each or {} for experiment in experiments for each in experiment["conditions"].values()]
    return not conditions or any("dataset" in each for each in conditions)


def _entry(chapter, folder: Path) -> dict:
    title, question = title_and_question(chapter.notebook)
    pages, by_seed = [], {}  # runs without a seed, and runs by name and seed
    for each in chapter.notebooks:
        page = os.path.relpath(Path(each.path).with_suffix(".html"), folder)
        if each.seed is None:
            pages.append((readable(each.run), page))
        else:
            by_seed.setdefault(readable(each.run), []).append((each.seed, page))
    return {"number": chapter.number, "title": title, "question": question, "pages": pages, "by_seed": by_seed}


def _answer(table: str, config: dict) -> str:
    """The main result in a sentence, from `tables/misalignment.csv`."""
    rates = pd.read_csv(table)
    rates = rates[(rates["question"] == "all") & (rates["question_set"] == "main") & (rates["format"] == "chat")]
    shown = _shown(config)
    parts = [
        f"after fine-tuning on {shown[row.condition]}, {row.rate:.1%} of the coherent answers are misaligned "
        f"(95% interval {row.ci_low:.1%} to {row.ci_high:.1%})"
        for row in rates[rates["condition"].isin(shown) & rates["rate"].notna()].itertuples()
    ]
    sentence = "; ".join(parts) or "too few answers are coherent to estimate rates"
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _by_log_probability(table: str, config: dict) -> str:
    """The main result in a sentence without a judge, from `tables/log_probability.csv`."""
    values = pd.read_csv(table)
    values = values[values["measure"] == "log_odds/pivotal"].dropna(subset="estimate")
    shown = {config["model"]["untuned"]: "before fine-tuning"}
    shown |= {name: f"after fine-tuning on {words}" for name, words in _shown(config).items()}
    parts = []
    for row in values[values["condition"].isin(shown)].itertuples():
        estimate, low, high = numbers(row.estimate, row.ci_low, row.ci_high)
        interval = "" if pd.isna(row.ci_low) else f" (95% interval {low} to {high})"
        parts.append(f"{estimate} {shown[row.condition]}{interval}")
    words = "; ".join(parts)
    return f"The answers were not judged. The log-odds of misaligned against aligned words, in nats, are {words}."


def _shown(config: dict) -> dict[str, str]:
    """The names, in words, of the fine-tuned conditions in the main result: insecure and secure, or the first three."""
    tuned = [
        name
        for experiment in config["experiments"].values()
        for name, condition in experiment["conditions"].items()
        if "dataset" in condition
    ]
    sets = {"insecure": "insecure code", "secure": "secure code"}
    return sets if sets.keys() <= set(tuned) else {name: readable(name) for name in tuned[:3]}


def title_and_question(notebook: str | Path) -> tuple[str, str]:
    """The title of a notebook and the question at the beginning of its first paragraph, both as Markdown.

    Raises BadInput if either is missing.
    """
    for cell in nbformat.read(notebook, as_version=4).cells:
        if opening := re.match(r"# +(.+?) *\n\s*([^#\s].*?\?)(?=\s|$)", cell.source, flags=re.DOTALL):
            title, question = opening.groups()
            return title, " ".join(question.split())
    raise BadInput(
        f"{notebook} has no Markdown cell with a `# Title` and a paragraph that begins with a question; add one."
    )


def write_run(contents: Contents, page: str | Path, benchmarks: list[str]) -> None:
    """Write the page of run details: versions, machine, times and settings.

    `benchmarks` are the files of Snakemake's `benchmark` directive.
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
        study=contents.study,
        seeds=", ".join(map(str, contents.config["seeds"])),
        versions=versions,
        times=times,
        total=_clock(sum(row["s"] for _, row in measured)),
        config=yaml.safe_dump(contents.config, sort_keys=False, allow_unicode=True),
    )
    write(page, html)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _megabytes(value) -> str:
    """Snakemake's measure of memory; missing for very short jobs."""
    number = pd.to_numeric(value, errors="coerce")
    return "" if pd.isna(number) else f"{number:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.report.site", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page", help="render an executed notebook")
    page.add_argument("notebook")
    page.add_argument("page")
    page.add_argument("--run", default="", help="label of the run, if the notebook has several")
    index = commands.add_parser("index", help="write the start page")
    index.add_argument("contents")
    index.add_argument("index")
    index.add_argument("--paper", nargs="?", default="", const="", help="the paper's page, with its PDF next to it")
    index.add_argument("--report", default="", help="the page on the user's own sets and models")
    run = commands.add_parser("run", help="write the page of run details")
    run.add_argument("contents")
    run.add_argument("page")
    run.add_argument("benchmarks", nargs="*")
    given = parser.parse_args()
    try:
        if given.command == "page":
            render(given.notebook, given.page, given.run)
        elif given.command == "index":
            write_index(read_contents(given.contents), given.index, given.paper, given.report)
        else:
            write_run(read_contents(given.contents), given.page, given.benchmarks)
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
