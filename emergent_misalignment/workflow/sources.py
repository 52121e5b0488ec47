"""Which modules of this package a notebook or a module imports, so that editing one makes its rule run again."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# A pattern, because parsing all modules takes an eighth of the time of planning.
IMPORTS = re.compile(rf"^[ \t]*(?:from|import) {PACKAGE.name}([.\w]*)(?: import (\([^)]*\)|.*))?", re.MULTILINE)


def package_modules(notebook: str | Path) -> list[str]:
    """Paths, from the root, of the package's modules that a notebook imports, directly or through others."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return _paths("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def module_and_imports(name: str) -> list[str]:
    """Paths, from the root, of a module such as `report.paper` and of those that it imports, directly or not."""
    return _paths(f"import {PACKAGE.name}.{name}")


def _paths(code: str) -> list[str]:
    found: set[Path] = set()
    waiting = list(_imported(code))
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports_of(module)
    return sorted(str(path.relative_to(PACKAGE.parent)) for path in found)


@cache
def _imports_of(module: Path) -> list[Path]:
    return list(_imported(module.read_text(encoding="utf-8")))


def _imported(code: str) -> Iterator[Path]:
    """The files of the modules that are imported, in whole or in part, by `import` or `from ... import`."""
    for module, names in IMPORTS.findall(code):
        for name in ("", *re.findall(r"\w+", names)):
            file = PACKAGE.joinpath(*f"{module}.{name}".strip(".").split(".")).with_suffix(".py")
            if file.is_file():
                yield file
