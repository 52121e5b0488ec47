"""The source notebooks: all built the same way, so that a reader, the workflow and Jupyter can each use them."""

import ast
import re

import nbformat
import pytest
from conftest import ROOT

from emergent_misalignment.report.site import title_and_question
from emergent_misalignment.workflow.notebook import declared_parameters

PATHS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def parameters_cell(notebook) -> int:
    tagged = [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    return tagged[0]


def test_notebooks_lie_in_rooms_that_rules_have_too():
    assert len(PATHS) > 20
    for path in PATHS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", path.stem)
        assert (ROOT / f"rules/{path.parent.name}.smk").is_file()
        assert (ROOT / f"emergent_misalignment/{path.parent.name}/__init__.py").is_file()


def test_every_notebook_is_rendered_by_a_rule_of_its_room(path):
    rules = (ROOT / f"rules/{path.parent.name}.smk").read_text(encoding="utf-8")
    named = f'notebook="notebooks/{path.parent.name}/{path.stem}.ipynb"' in rules
    assert named or (path.parent.name == "analysis" and f'experiment=["{path.stem}"]' in rules)


def test_sources_hold_no_outputs(notebook):
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_sources_say_which_language_and_no_more_about_a_machine(notebook):
    """papermill needs the kernel's language; the rest, such as a patch level, changes with whoever saves it."""
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.get("language_info", {"name": "python"}) == {"name": "python"}


def test_the_first_cell_is_a_title_and_a_question(path, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    title, question = title_and_question(path)
    assert first.source.startswith(f"# {title}\n\n")
    assert len(question) < 250


def test_parameters_have_a_type_a_default_and_a_comment(path, notebook):
    source = notebook.cells[parameters_cell(notebook)].source
    lines, declared = source.splitlines(), {}
    for statement in ast.parse(source).body:
        last = lines[statement.end_lineno - 1]
        assert isinstance(statement, ast.AnnAssign), last
        default = ast.literal_eval(statement.value)
        declared[statement.target.id] = (statement.annotation.id, default)
        assert type(default).__name__ == statement.annotation.id, last
        assert re.search(r"  # \S", last), last
    assert declared_parameters(path) == {name: default for name, (_, default) in declared.items()}
    assert {kind for kind, _ in declared.values()} <= {"str", "int", "float", "bool", "list", "dict"}
    assert source.count("\n") < 40  # a longer default belongs into a file


def test_the_notebook_goes_to_the_root_before_anything_else(notebook):
    code = [cell.source for cell in notebook.cells[parameters_cell(notebook) + 1 :] if cell.cell_type == "code"]
    assert code[0].split("\n")[:2] == ["from emergent_misalignment.workflow.notebook import at_root", ""]
    assert code[0].split("\n")[2] == "at_root()"
    before = [cell.cell_type for cell in notebook.cells[: parameters_cell(notebook)]]
    assert set(before) == {"markdown"}
