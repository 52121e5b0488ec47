"""Templates of the HTML pages, and images embedded in them."""

import base64
import mimetypes
from pathlib import Path

import jinja2
import mistune

from emergent_misalignment.files import replacing
from emergent_misalignment.safe import visible

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
    """Write a page. Characters that UTF-8 cannot encode, that control a terminal or turn text around become escapes."""
    with replacing(path) as temporary:
        temporary.write_text(visible(html), encoding="utf-8", errors="backslashreplace")


def data_uri(path: str | Path) -> str:
    kind, _ = mimetypes.guess_type(path)
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
