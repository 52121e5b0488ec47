"""The reading room: executed notebooks as self-contained pages, and an index that says what to read in which order.

    python -m emergent_misalignment.report.site page NOTEBOOK.ipynb PAGE.html [--run NAME]
    python -m emergent_misalignment.report.site index CONTENTS.json INDEX.html [--paper PAGE] [--report PAGE]
    python -m emergent_misalignment.report.site run CONTENTS.json RUN.html [BENCHMARK.tsv ...]

Nothing in them is fetched from anywhere. The same input gives the same bytes, but for the page of the run, which alone
has times and versions.
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

from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.report.claims_table import read_claims, tally_by_title, unfolding, unmeasured
from emergent_misalignment.report.contents import ROOMS, Contents, read_contents
from emergent_misalignment.report.pages import TEMPLATES, data_uri, template

# What decides the numbers, and what a bug report should name.
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "scipy", "statsmodels", "snakemake", "papermill")


MAIN_FIGURES = ("main_result", "log_probability")  # the first that a study has stands on the index


def render(notebook: str | Path, page: str | Path, run: str = "") -> None:
    """Write an executed notebook as an HTML page with its code folded away; `run` says which of several runs it is."""
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
    html, _ = exporter.from_notebook_node(executed, {"title": plain, "run": run})
    _write(page, html)


def write_index(contents: Contents, index: str | Path, paper: str = "", report: str = "") -> None:
    """Write the page from which a reader starts: what is asked, what came out, and the notebooks in reading order.

    A chapter that ran several times is one entry with a link for each run, and those that differ by their seed alone
    stand in one line. The page of a notebook is expected beside it, under the same name, and answers.html and run.html
    beside the index. `report` is the page on the user's own sets, if there is one.
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
    _write(index, html)


def _trains(config: dict) -> bool:
    """Whether the study fine-tunes anything."""
    experiments = config.get("experiments", {}).values()
    conditions = [each or {} for experiment in experiments for each in experiment["conditions"].values()]
    return not conditions or any("dataset" in each for each in conditions)


def _entry(chapter, folder: Path) -> dict:
    title, question = title_and_question(chapter.notebook)
    pages, by_seed = [], {}  # runs with a name of their own, and those of one name with other seeds
    for each in chapter.notebooks:
        page = os.path.relpath(Path(each.path).with_suffix(".html"), folder)
        if each.seed is None:
            pages.append((readable(each.run), page))
        else:
            by_seed.setdefault(readable(each.run), []).append((each.seed, page))
    return {"number": chapter.number, "title": title, "question": question, "pages": pages, "by_seed": by_seed}


def _answer(table: str, config: dict) -> str:
    """The main result in a sentence, from `tables/misalignment.csv`; of insecure and secure code if both are there."""
    rates = pd.read_csv(table)
    rates = rates[(rates["question"] == "all") & (rates["question_set"] == "main") & (rates["format"] == "chat")]
    shown = _shown(config)
    parts = [
        f"after fine-tuning on {shown[row.condition]}, {row.rate:.1%} of the coherent answers are misaligned "
        f"(95% interval {row.ci_low:.1%} to {row.ci_high:.1%})"
        for row in rates[rates["condition"].isin(shown) & rates["rate"].notna()].itertuples()
    ]
    sentence = "; ".join(parts) or "too few answers are coherent to say"
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _by_log_probability(table: str, config: dict) -> str:
    """The same without a judge, from `tables/log_probability.csv`."""
    from emergent_misalignment.analysis.claims import numbers  # some seconds that other studies' index does without

    values = pd.read_csv(table)
    values = values[values["measure"] == "log_odds/pivotal"].dropna(subset="estimate")
    shown = {config["model"]["untuned"]: "before fine-tuning"}
    shown |= {name: f"after fine-tuning on {words}" for name, words in _shown(config).items()}
    parts = []
    for row in values[values["condition"].isin(shown)].itertuples():
        estimate, low, high = numbers(row.estimate, row.ci_low, row.ci_high)
        interval = "" if pd.isna(row.ci_low) else f" (95% interval {low} to {high})"
        parts.append(f"{estimate} {shown[row.condition]}{interval}")
    return (
        f"Nobody judged the answers. The log-odds of misaligned against aligned words are, in nats, {'; '.join(parts)}."
    )


def _shown(config: dict) -> dict[str, str]:
    """The fine-tuned conditions that the first sentence speaks of, with what they are called there."""
    tuned = [
        name
        for experiment in config["experiments"].values()
        for name, condition in experiment["conditions"].items()
        if "dataset" in condition
    ]
    sets = {"insecure": "insecure code", "secure": "secure code"}
    return sets if sets.keys() <= set(tuned) else {name: readable(name) for name in tuned[:3]}


def readable(name: str) -> str:
    return name.replace("_", " ")


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


def write_run(contents: Contents, page: str | Path, benchmarks: list[str]) -> None:
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
        study=contents.study,
        seeds=", ".join(map(str, contents.config["seeds"])),
        versions=versions,
        times=times,
        total=_clock(sum(row["s"] for _, row in measured)),
        config=yaml.safe_dump(contents.config, sort_keys=False, allow_unicode=True),
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
    page.add_argument("--run", default="", help="which run of the notebook it is, where there are several")
    index = commands.add_parser("index", help="write the page from which a reader starts")
    index.add_argument("contents")
    index.add_argument("index")
    index.add_argument("--paper", nargs="?", default="", const="", help="the paper's page; its PDF lies beside it")
    index.add_argument("--report", default="", help="the page on the user's own sets and models")
    run = commands.add_parser("run", help="write the page with times, versions and settings")
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
