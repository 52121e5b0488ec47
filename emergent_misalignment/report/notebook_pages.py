"""Executed notebooks as self-contained pages."""

import re
from pathlib import Path

import nbformat

from emergent_misalignment.files import BadInput
from emergent_misalignment.report.pages import TEMPLATES, write


def render(notebook: str | Path, page: str | Path, run: str = "") -> None:
    """Write an executed notebook as an HTML page with its code folded away; `run` says which of several runs it is."""
    from nbconvert import HTMLExporter  # takes half a second to import

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
