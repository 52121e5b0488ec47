"""Which rooms of the package may import which: what is general knows nothing of the made-up world."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "emergent_misalignment"
# What a room may import besides itself, `files` and `progress`.
ALLOWED = {
    "data": set(),
    "models": {"data"},
    "evaluation": {"data", "models"},
    "analysis": {"data", "evaluation"},
    "figures": {"analysis"},
    "report": {"analysis", "data", "figures"},
    "study": {"data", "evaluation"},
    "own_data": {"analysis", "data", "evaluation", "figures", "models", "report", "study"},
    "workflow": set(),
    "world": {"data", "models", "evaluation", "analysis"},
}


def imported(module: Path) -> set[str]:
    """The modules of the package that a module imports, as ROOM.MODULE."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
            path = node.module.removeprefix(f"{PACKAGE.name}.")
            found |= (
                {path}
                if "." in path or path in {"files", "progress"}
                else {f"{path}.{alias.name}" for alias in node.names}
            )
    return found


def test_every_room_is_listed():
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms == ALLOWED.keys()


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*/*.py")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_room_imports_no_other_than_it_may(module):
    room = module.parent.name
    rooms = {name.split(".")[0] for name in imported(module) - {"files", "progress"}}
    assert rooms <= ALLOWED[room] | {room}


def test_what_imports_nothing_of_ours():
    assert imported(PACKAGE / "data" / "chats.py") == {"files", "data.rows", "data.control_tokens"}
    assert imported(PACKAGE / "data" / "rows.py") == imported(PACKAGE / "data" / "control_tokens.py") == set()
    assert imported(PACKAGE / "files.py") == set()
