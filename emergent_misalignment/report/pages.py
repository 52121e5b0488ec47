"""Templates of the HTML pages, and images embedded in them."""

import base64
import mimetypes
from pathlib import Path

import jinja2
import mistune

from emergent_misalignment.files import replacing

TEMPLATES = Path(__file__).with_name("templates")


def template(name: str) -> jinja2.Template:
    """A template of a page, with autoescaping."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline_markdown"] = inline_markdown
    return environment.get_template(name)


def inline_markdown(text: str) -> str:
    return mistune.html(text).strip().removeprefix("<p>").removesuffix("</p>")


def write(path: str | Path, html: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def data_uri(path: str | Path) -> str:
    kind, _ = mimetypes.guess_type(path)
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
