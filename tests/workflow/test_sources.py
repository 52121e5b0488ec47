"""The modules that notebooks and modules import are those that Python's parser finds."""

import ast
import json

from conftest import ROOT

from emergent_misalignment.workflow.sources import PACKAGE, _imported


def parsed(code: str) -> set:
    """The files of this package's modules in the import statements of `code`."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    files = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return {file for file in files if file.is_file() and PACKAGE in file.parents}


def test_every_import_of_the_package_is_found():
    codes = [path.read_text() for path in PACKAGE.rglob("*.py")]
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        codes.append("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    found = [set(_imported(code)) for code in codes]
    assert found == [parsed(code) for code in codes]
    assert sum(map(len, found)) > len(codes)


def test_names_in_brackets_and_after_as_are_found():
    code = "from emergent_misalignment import (\n    files,  # a comment\n    registry as r,\n)\n"
    code += "import emergent_misalignment.safe as s"
    assert {file.name for file in _imported(code)} == {"files.py", "registry.py", "safe.py"}
