"""Which modules of this package a notebook's results depend on, so that editing one of them makes the notebook run again."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def package_modules(notebook: str | Path) -> list[str]:
    """The package's modules that a notebook imports, directly or through one another, as paths below the working directory."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found: set[str] = set()
    waiting = list(_imported(code))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    return sorted(f"{PACKAGE.name}/{name}.py" for name in found)


def _imported(code: str) -> Iterator[str]:
    """Names of the package's modules in `from emergent_misalignment.NAME import …` and in `import emergent_misalignment.NAME`."""
    for node in ast.walk(ast.parse(code)):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            package, _, name = (module or "").partition(".")
            if package == PACKAGE.name and (PACKAGE / f"{name}.py").is_file():
                yield name
