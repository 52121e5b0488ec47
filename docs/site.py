"""Hooks of mkdocs. The site has the repository's Markdown files at the same paths, so that their links hold in both.

A page is added for each room of the package, which mkdocstrings fills from the docstrings without importing anything.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "emergent_misalignment"
SOURCES = ("*.md", "*/README.md", "docs/**/*", "config/*.yaml", "CITATION.cff", "LICENSE")
REFERENCE = "reference"
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<path>[^():#\s]+)\)")


def on_files(files, config):
    """Replace the files of docs/ by SOURCES and the pages of the rooms; the theme's files stay."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted({path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()}):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix != ".py":
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for room, text in _rooms().items():
        files.append(File.generated(config, f"{REFERENCE}/{room}.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to folders: to the page about the folder, or else only their text, since a site lists no folders."""
    here = posixpath.dirname(page.file.src_uri)

    def link(found):
        path = posixpath.normpath(posixpath.join(here, found["path"]))
        if not (ROOT / path).is_dir():
            return found[0]
        about = f"{REFERENCE}/README.md" if ROOT / path == PACKAGE else f"{path}/README.md"
        if about not in files.src_uris:
            return found["text"]
        return f"[{found['text']}]({posixpath.relpath(about, here or '.')})"

    return _LINK.sub(link, markdown)


def _rooms() -> dict[str, str]:
    """The Markdown of the page of each room by its name, and README, which lists them."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").parts
        if module[-1] != "__init__":
            rooms.setdefault(module[0], []).append(".".join((PACKAGE.name, *module)))
    pages = {
        room: f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules) for room, modules in rooms.items()
    }
    listed = "\n".join(f"- [{room}]({room}.md)" for room in rooms)
    about = "The modules of each room; [the architecture](../docs/architecture.md#rooms) says what the rooms are for."
    return pages | {"README": f"# Package reference\n\n{about}\n\n{listed}\n"}
