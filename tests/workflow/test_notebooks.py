"""The source notebooks: all built the same way, so that a reader, the workflow and Jupyter can each use them."""

import ast
import re

import nbformat
import papermill
import pytest
from conftest import ROOT

from emergent_misalignment.report.site import title_and_question

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))


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


def test_names_are_numbers_in_reading_order_and_words():
    assert PATHS
    for number, path in enumerate(PATHS, 1):
        assert re.fullmatch(rf"{number:02}_[a-z]+(_[a-z]+)*", path.stem)


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
    seen = papermill.inspect_notebook(str(path))
    assert declared == {
        name: (each["inferred_type_name"], ast.literal_eval(each["default"])) for name, each in seen.items()
    }
    assert {kind for kind, _ in declared.values()} <= {"str", "int", "float", "bool", "list", "dict"}
    assert all(each["help"] for each in seen.values())


def test_the_notebook_goes_to_the_root_before_anything_else(notebook):
    code = [cell.source for cell in notebook.cells[parameters_cell(notebook) + 1 :] if cell.cell_type == "code"]
    assert code[0].split("\n")[:2] == ["from emergent_misalignment.workflow.notebook import at_root", ""]
    assert code[0].split("\n")[2] == "at_root()"
    before = [cell.cell_type for cell in notebook.cells[: parameters_cell(notebook)]]
    assert set(before) == {"markdown"}
