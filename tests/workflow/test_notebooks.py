"""The source notebooks: all built the same way, so that a reader, the workflow and Jupyter can each use them."""

import ast
import re

import nbformat
import pytest
from conftest import ROOT

from emergent_misalignment.registry import EXPERIMENTS
from emergent_misalignment.report.notebook_pages import title_and_question
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


def test_every_notebook_is_run_by_a_rule(path):
    rules = (ROOT / f"rules/{path.parent.name}.smk").read_text(encoding="utf-8")
    name = f"notebooks/{path.parent.name}/{path.stem}.ipynb"
    assert f'notebook="{name}"' in rules or name in {each.notebook for each in EXPERIMENTS}


def test_sources_hold_no_outputs(notebook):
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_sources_say_which_language_and_no_more_about_a_machine(notebook):
    """papermill needs the kernel's language; the rest, such as a patch level, differs between machines."""
    assert notebook.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.get("language_info", {"name": "python"}) == {"name": "python"}


def test_the_first_cell_is_a_title_and_a_question(path, notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    title, question = title_and_question(path)
    assert first.source.startswith(f"# {title}\n\n")
    assert len(question) < 250


def test_parameters_have_a_type_an_empty_value_and_a_comment(path, notebook):
    """The values are the study's, which the workflow passes; papermill reads the types."""
    lines = notebook.cells[parameters_cell(notebook)].source.splitlines()
    types = {}
    for line in lines:
        name, kind, value = re.fullmatch(r"(\w+): (str|int|float|bool|list|dict) = (\S+)  # \S.*", line).groups()
        assert (
            ast.literal_eval(value)
            == {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}[kind]()
        )
        types[name] = kind
    assert declared_parameters(path) == types


def test_the_notebook_goes_to_the_root_before_anything_else(notebook):
    code = [cell.source for cell in notebook.cells[parameters_cell(notebook) + 1 :] if cell.cell_type == "code"]
    assert code[0].split("\n")[:2] == ["from emergent_misalignment.workflow.notebook import at_root", ""]
    assert code[0].split("\n")[2] == "at_root()"
    before = [cell.cell_type for cell in notebook.cells[: parameters_cell(notebook)]]
    assert set(before) == {"markdown"}
