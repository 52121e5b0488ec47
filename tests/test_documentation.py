"""The documentation as a site: built from the repository's Markdown, complete, self-contained, without broken links."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
REMOTE = ("http:", "https:", "//")


def build(folder: Path, site: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


class Page(HTMLParser):
    """The ids of a page, and the resources that a browser loads for it."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.loaded = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag in ("script", "img", "iframe"):
            self.loaded.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.loaded.append(given.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_module_is_in_the_reference(site):
    for module in (ROOT / "emergent_misalignment").rglob("*.py"):
        parts = module.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            page = Page(site / "reference" / f"{parts[1]}.html")
            assert ".".join(parts) in page.ids, f"{module} is missing"


def test_pages_are_those_of_the_repository_and_load_nothing_from_elsewhere(site):
    pages = ["index.html", "CHANGELOG.html", "config/index.html"]
    pages += [f"docs/{page.stem}.html" for page in (ROOT / "docs").glob("*.md")]
    assert not [page for page in pages if not (site / page).is_file()]
    assert (site / "docs/results/main_result.png").is_file()
    for path in site.rglob("*.html"):
        loaded = Page(path).loaded
        assert loaded and not [each for each in loaded if each.startswith(REMOTE)], path


def test_a_broken_link_fails(tmp_path):
    for name in ("docs", "config", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for folder in ("emergent_misalignment", "rules", "notebooks", "data", "figures", "paper", "organisms"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "organisms/README.md", tmp_path / "organisms")
    assert build(tmp_path, tmp_path / "site").returncode == 0
    page = tmp_path / "docs/running.md"
    page.write_text(page.read_text() + "\n[one](nowhere.md), [two](architecture.md#nowhere)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "'docs/nowhere.md' is not found" in done.stderr
    assert "does not contain an anchor '#nowhere'" in done.stderr
