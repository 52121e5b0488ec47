"""Which rooms of the package import which: there are no cycles, and nothing imports the made-up world."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "emergent_misalignment"
SHARED = {"files", "progress", "registry", "safe"}  # modules that every room may import
ALLOWED = {
    "data": set(),
    "models": {"data"},
    "evaluation": {"data", "models"},
    "analysis": {"evaluation"},
    "figures": {"analysis"},
    "study": {"evaluation", "workflow"},
    "report": {"analysis", "figures", "study"},
    "own_data": {"analysis", "data", "evaluation", "models", "report", "study"},
    "workflow": set(),
    "world": {"data", "models", "evaluation"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports when it runs, in functions too."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(inner) for node in for_types for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and id(node) not in skipped
            and f"{node.module}.".startswith(f"{PACKAGE.name}.")
        ):
            room = node.module.removeprefix(PACKAGE.name).lstrip(".")
            names = {f"{room}.{alias.name}".lstrip(".") for alias in node.names} & MODULES.keys()
            found |= names or {room}
    return found


def test_every_room_is_listed():
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms == ALLOWED.keys()
    assert {name for name in MODULES if "." not in name} == SHARED


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_no_other_than_it_may(module):
    room = module.split(".")[0]
    assert {name.split(".")[0] for name in imported(module)} <= ALLOWED.get(room, set()) | SHARED | {room}


def test_no_module_imports_itself_through_others():
    TopologicalSorter({module: imported(module) for module in MODULES}).prepare()  # raises CycleError
    TopologicalSorter(ALLOWED).prepare()


def test_what_imports_nothing_of_ours():
    assert imported("data.chats") == {"files", "data.rows", "data.control_tokens", "data.formats"}
    assert imported("files") == {"safe"}
    assert imported("data.rows") == {"data.formats", "data.parsing"}
    for module in ("data.formats", "data.parsing", "data.control_tokens", "safe", "registry", "evaluation.thresholds"):
        assert imported(module) == set()
