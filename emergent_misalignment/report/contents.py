"""The table of contents of a study: its chapters in reading order.

The rules write data/STUDY/contents.json; index, paper and the page of run details read it. A chapter is a source
notebook with its executed copies and their results. Its number is its position.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from emergent_misalignment.analysis.formatting import readable
from emergent_misalignment.files import BadInput

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
    """A study: name, kind ("organism" or "real"), training runs per condition, resolved config, chapters."""

    study: str
    kind: str
    seeds: int
    config: dict
    chapters: tuple[Chapter, ...] = ()
    figures: dict[str, str] = field(init=False)  # paths by name

    def __post_init__(self):
        figures = {Path(path).stem: path for path in self.results if path.startswith("figures/")}
        object.__setattr__(self, "figures", figures)

    @property
    def results(self) -> list[str]:
        return [path for chapter in self.chapters for path in chapter.results]

    def table(self, name: str) -> str | None:
        """The path of the study's `tables/NAME.csv`; None if no chapter makes it."""
        path = f"data/{self.study}/tables/{name}.csv"
        return path if path in self.results else None

    def chapter_of(self, result: str) -> Chapter:
        """The chapter of a result."""
        return next(chapter for chapter in self.chapters if result in chapter.results)


def read_contents(path: str | Path) -> Contents:
    """Read data/STUDY/contents.json. Raises BadInput if a key is missing."""
    try:
        registry = json.loads(Path(path).read_text(encoding="utf-8"))
        chapters = [
            Chapter(
                number,
                chapter["room"],
                chapter["name"],
                chapter["source"],
                tuple(Executed(**notebook) for notebook in chapter["notebooks"]),
                tuple(chapter["results"]),
            )
            for number, chapter in enumerate(registry["chapters"], 1)
        ]
        return Contents(*(registry[key] for key in ("study", "kind", "seeds", "config")), tuple(chapters))
    except KeyError as error:
        raise BadInput(f"{path} lacks {error}; delete the file so that the workflow writes it again.") from error
