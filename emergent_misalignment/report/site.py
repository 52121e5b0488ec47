"""Write the pages of a study: executed notebooks, the index, and run details.

Pages are self-contained. The same input gives the same bytes, except for the page of run details, which has times and
versions.
"""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pandas as pd
import yaml

from emergent_misalignment.analysis.formatting import numbers, readable
from emergent_misalignment.registry import DATASETS
from emergent_misalignment.report.claims_table import read_claims, tally_by_title, unfolding, unmeasured
from emergent_misalignment.report.contents import ROOMS, Contents
from emergent_misalignment.report.notebook_pages import title_and_question
from emergent_misalignment.report.pages import data_uri, template, write
from emergent_misalignment.study.model import Study

# Packages that affect the results; their versions are listed on the page of run details.
PACKAGES = ("torch", "transformers", "trl", "peft", "numpy", "pandas", "scipy", "statsmodels", "snakemake", "papermill")
MAIN_FIGURES = ("main_result", "log_probability")  # the index shows the first that a study has


def write_index(contents: Contents, index: str | Path, paper: str = "", report: str = "") -> None:
    """Write the start page: the question, the main result, the claims, and the notebooks in reading order.

    A chapter with several runs is one entry with a link per run; runs that differ only by their seed share a line. The
    page of a notebook is expected next to it, under the same name, and answers.html and run.html next to the index.
    `report` is the page on the user's own sets, if there is one.
    """
    study = contents.study
    rooms = [
        (ROOMS[room], [_entry(chapter, Path(index).parent) for chapter in chapters])
        for room, chapters in groupby(contents.chapters, key=lambda chapter: chapter.room)
    ]
    claims_table, answer = contents.table("claims"), ""
    if rates := contents.table("misalignment"):
        answer = _answer(rates, study)
    elif log_odds := contents.table("log_probability"):
        answer = _by_log_probability(log_odds, study)
    figure = next((name for name in MAIN_FIGURES if name in contents.figures), "")
    claims = read_claims(claims_table, contents.table("claim_parts")) if claims_table else {}
    measured = {number: claim for number, claim in claims.items() if claim.measured}
    html = template("index.html.j2").render(
        study=study.study,
        seeds=len(study.seeds),
        trained=bool(study.tuned),
        organism=study.is_organism,
        judged=bool(study.judge),
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


def _answer(table: str, study: Study) -> str:
    """The main result in a sentence, from `tables/misalignment.csv`; of insecure and secure code if both are there."""
    rates = pd.read_csv(table)
    rates = rates[(rates["question"] == "all") & (rates["question_set"] == "main") & (rates["format"] == "chat")]
    shown = _shown(study)
    parts = [
        f"after fine-tuning on {shown[row.condition]}, {row.rate:.1%} of the coherent answers are misaligned "
        f"(95% interval {row.ci_low:.1%} to {row.ci_high:.1%})"
        for row in rates[rates["condition"].isin(shown) & rates["rate"].notna()].itertuples()
    ]
    sentence = "; ".join(parts) or "too few answers are coherent to estimate rates"
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _by_log_probability(table: str, study: Study) -> str:
    """The same without a judge, from `tables/log_probability.csv`."""
    values = pd.read_csv(table)
    values = values[values["measure"] == "log_odds/pivotal"].dropna(subset="estimate")
    shown = {study.start: "before fine-tuning"}
    shown |= {name: f"after fine-tuning on {words}" for name, words in _shown(study).items()}
    parts = []
    for row in values[values["condition"].isin(shown)].itertuples():
        estimate, low, high = numbers(row.estimate, row.ci_low, row.ci_high)
        interval = "" if pd.isna(row.ci_low) else f" (95% interval {low} to {high})"
        parts.append(f"{estimate} {shown[row.condition]}{interval}")
    return (
        "The answers were not judged. The log-odds of misaligned against aligned words are, in nats, "
        f"{'; '.join(parts)}."
    )


def _shown(study: Study) -> dict[str, str]:
    """The fine-tuned conditions in the first sentence, with their words there."""
    sets = {name: DATASETS[name].label for name in ("insecure", "secure")}
    return sets if sets.keys() <= study.tuned.keys() else {name: readable(name) for name in [*study.tuned][:3]}


def write_run(study: Study, page: str | Path, benchmarks: Sequence[str | Path]) -> None:
    """Write the page that says with what versions, on what machine, how long and under what settings a study ran.

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
        study=study.study,
        seeds=", ".join(map(str, study.seeds)),
        versions=versions,
        times=times,
        total=_clock(sum(row["s"] for _, row in measured)),
        config=yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
    )
    write(page, html)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _megabytes(value) -> str:
    """Snakemake's measure of memory; missing for very short jobs."""
    number = pd.to_numeric(value, errors="coerce")
    return "" if pd.isna(number) else f"{number:,.0f}"
