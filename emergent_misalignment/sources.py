"""Which modules of this package a notebook or a module depends on, so that editing one makes its rule run again."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def package_modules(notebook: str | Path) -> list[str]:
    """Paths from the root of the package's modules that a notebook imports, directly or through others."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return _paths("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def module_and_imports(name: str) -> list[str]:
    """Paths from the root of a module of the package, and of those that it imports, directly or through others."""
    return _paths(f"from {PACKAGE.name} import {name}")


def _paths(code: str) -> list[str]:
    found: set[str] = set()
    waiting = list(_imported(code))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    return sorted(f"{PACKAGE.name}/{name}.py" for name in found)


def _imported(code: str) -> Iterator[str]:
    """The modules in `from emergent_misalignment.NAME import …` and in `from emergent_misalignment import NAME`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, module = node.module.partition(".")
            names = [module] if module else [alias.name for alias in node.names]
            yield from (name for name in names if package == PACKAGE.name)
