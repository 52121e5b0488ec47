"""The registry: each row has the functions, files and notebooks that it names."""

from collections import Counter

import papermill
import pytest
from conftest import ROOT

from emergent_misalignment.data import published
from emergent_misalignment.registry import DATASETS, EVALUATIONS, EXPERIMENTS, PUBLISHED_SETS, WRITTEN_SETS
from emergent_misalignment.world import evaluations
from emergent_misalignment.world.sets import SETS


def repeated(names) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def test_evaluations_have_questions_in_the_world_or_published_files():
    assert evaluations.EVALUATIONS.keys() == EVALUATIONS.keys() - {"choices"}
    files = {file for each in EVALUATIONS.values() for file in each.files}
    assert files == published.QUESTION_FILES.keys()
    assert all(each.files or each.name in evaluations.EVALUATIONS for each in EVALUATIONS.values())
    assert all(bool(each.prompts) == bool(each.files) for each in EVALUATIONS.values() if each.name != "choices")


def test_sets_are_written_or_published_where_the_registry_says_so():
    assert SETS.keys() == {*WRITTEN_SETS}
    assert published.DATASETS.keys() == {*PUBLISHED_SETS}
    assert all(DATASETS[name].rows for name in PUBLISHED_SETS)


def test_names_are_unique():
    assert not repeated(each.name for each in EXPERIMENTS)
    assert not repeated(each.name for row in EVALUATIONS.values() for each in row.measures)
    assert not repeated(name for each in EXPERIMENTS for name, _ in each.tables.values())
    assert not repeated(name for each in EXPERIMENTS for name, _ in each.figures.values())
    assert not repeated(each.measures[1] for each in EXPERIMENTS if each.measures)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_the_parameters_of_a_notebook_are_those_of_its_experiment(experiment):
    """Some inputs are only waited for."""
    parameters = papermill.inspect_notebook(ROOT / experiment.notebook).keys()
    given = [*experiment.settings, *experiment.tables, *experiment.figures]
    given += [experiment.measures[0]] if experiment.measures else []
    given += ["published"] if experiment.published else []
    assert not repeated([*given, *experiment.inputs])
    assert parameters - experiment.inputs.keys() == {*given}
    assert parameters & experiment.inputs.keys()
