"""The table of contents of a study: its chapters in reading order.

The rules write data/STUDY/contents.json; index, paper and the page of run details read it. A chapter is a source
notebook with its executed copies and their results. Its number is its position.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from emergent_misalignment.analysis.formatting import readable
from emergent_misalignment.study.config import read_study
from emergent_misalignment.study.model import Study

# Folders of notebooks and their headings in the index.
ROOMS = {
    "world": "The made-up world",
    "data": "Data",
    "models": "Models",
    "evaluation": "Asking and judging",
    "analysis": "Results",
}


@dataclass(frozen=True)
class Executed:
    """An executed copy of a notebook: path, name of the `run` ("" if there is one only), and seed."""

    path: str
    run: str = ""
    seed: int | None = None  # if runs of the same name differ by it

    @property
    def label(self) -> str:
        """The run in words, as in "width-64, seed 1"."""
        seed = "" if self.seed is None else f"seed {self.seed}"
        return ", ".join(filter(None, (readable(self.run), seed)))


@dataclass(frozen=True)
class Chapter:
    """A notebook, its executed copies, and their results."""

    number: int
    room: str
    name: str
    source: str
    notebooks: tuple[Executed, ...]
    results: tuple[str, ...] = ()

    @property
    def notebook(self) -> str:
        """The path of the first executed copy."""
        return self.notebooks[0].path


@dataclass(frozen=True)
class Contents:
    """A study and the chapters of its reading room."""

    study: Study
    chapters: tuple[Chapter, ...] = ()
    figures: dict[str, str] = field(init=False)  # paths by name

    def __post_init__(self):
        figures = {Path(path).stem: path for path in self.results if path.startswith("figures/")}
        object.__setattr__(self, "figures", figures)

    @property
    def results(self) -> list[str]:
        return [path for chapter in self.chapters for path in chapter.results]

    def table(self, name: str) -> str | None:
        """The path of `tables/NAME.csv` of the study; None if no chapter makes it."""
        path = self.study.paths.of(f"tables/{name}.csv")
        return path if path in self.results else None

    def chapter_of(self, result: str) -> Chapter:
        """The chapter of a result."""
        return next(chapter for chapter in self.chapters if result in chapter.results)


def read_contents(study: str | Path, contents: str | Path) -> Contents:
    """Read data/STUDY/study.json and contents.json."""
    chapters = json.loads(Path(contents).read_text(encoding="utf-8"))["chapters"]
    return Contents(
        read_study(study),
        tuple(
            Chapter(
                number,
                each["room"],
                each["name"],
                each["source"],
                tuple(Executed(**notebook) for notebook in each["notebooks"]),
                tuple(each["results"]),
            )
            for number, each in enumerate(chapters, 1)
        ),
    )
