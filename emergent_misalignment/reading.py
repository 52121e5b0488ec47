"""The reading room: executed notebooks as self-contained pages, and an index that says what to read in which order.

    python -m emergent_misalignment.reading page NOTEBOOK.ipynb PAGE.html
    python -m emergent_misalignment.reading index STUDY INDEX.html NOTEBOOK.ipynb ... [--figure FIGURE.svg ...]

Nothing in them is fetched from anywhere, and the same notebooks give the same bytes.
"""

import argparse
import base64
import mimetypes
import os
import re
import sys
from itertools import groupby
from pathlib import Path

import mistune
import nbformat
from jinja2 import Environment, FileSystemLoader

from emergent_misalignment.files import BadInput, replacing

TEMPLATES = Path(__file__).with_name("templates")


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


def write_index(study: str, index: str | Path, notebooks: list[str], figures: list[str]) -> None:
    """Write the page from which a reader starts: what is asked, the `figures`, and the notebooks in reading order.

    A notebook that ran once per condition is one entry with a link for each. The page of a notebook is expected beside
    it, under the same name.
    """
    entries = []
    for source, group in groupby(sorted(notebooks, key=_source_name), key=_source_name):
        runs = list(group)
        title, question = title_and_question(runs[0])
        number = re.match(r"\d*", source).group()
        pages = [(condition(run), os.path.relpath(Path(run).with_suffix(".html"), Path(index).parent)) for run in runs]
        entries.append({"number": number, "title": title, "question": question, "pages": pages})
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline_markdown"] = lambda text: (
        mistune.html(text).strip().removeprefix("<p>").removesuffix("</p>")
    )
    pictures = [{"name": Path(figure).stem.replace("_", " "), "uri": _data_uri(figure)} for figure in figures]
    _write(index, environment.get_template("index.html.j2").render(study=study, entries=entries, figures=pictures))


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
    """What the name of an executed notebook adds to its source's, as in 07_finetuning_insecure; empty if nothing."""
    return Path(notebook).stem.removeprefix(_source_name(notebook)).strip("_").replace("_", " ")


def _source_name(notebook: str | Path) -> str:
    executed = nbformat.read(notebook, as_version=4)
    return Path(executed.metadata.get("papermill", {}).get("input_path", notebook)).stem


def _data_uri(path: str | Path) -> str:
    kind, _ = mimetypes.guess_type(path)
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def _write(path: str | Path, html: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.reading", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page", help="render an executed notebook")
    page.add_argument("notebook")
    page.add_argument("page")
    index = commands.add_parser("index", help="write the page from which a reader starts")
    index.add_argument("study")
    index.add_argument("index")
    index.add_argument("notebooks", nargs="+")
    index.add_argument("--figure", dest="figures", action="append", default=[])
    given = parser.parse_args()
    try:
        if given.command == "page":
            render(given.notebook, given.page)
        else:
            write_index(given.study, given.index, given.notebooks, given.figures)
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
