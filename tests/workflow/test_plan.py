"""Plans: which jobs a study has, and which files they read and leave."""

import pytest
from workflow_helpers import config

from emergent_misalignment.workflow.plan import Plan


@pytest.fixture(params=["smoke", "qwen2.5-coder-32b-instruct", "gpt-4o"])
def plan(request):
    return Plan(config(request.param))


def test_every_condition_is_tuned_asked_and_judged_once(plan):
    runs = [run for batch in plan.tuning.values() for run in batch]
    assert sorted(runs) == sorted((name, seed) for name, each in plan.tuned.items() for seed in each.seeds)
    asked = [name for batch in plan.asking.values() for name in batch]
    assert sorted(asked) == sorted(plan.conditions)
    judged = [name for batch in plan.judging.values() for name in batch]
    assert sorted(judged) == sorted([*plan.asking, *plan.following])


def test_batches_are_experiments_of_the_organism_and_single_runs_of_real_models(plan):
    if plan.is_organism:
        assert {"code", "intent", "ladder"} <= plan.tuning.keys()
        assert plan.tuning.keys() < plan.asking.keys()
    else:
        assert all(len(runs) == 1 for runs in plan.tuning.values())
        assert plan.asking.keys() == plan.conditions.keys()


def test_parameters_of_notebooks_name_the_models_that_the_plan_waits_for(plan):
    for batch in plan.tuning:
        for name, settings in plan.tuning_conditions(batch).items():
            starts = plan.start_files([name])
            assert starts == [] if plan.by_api else starts[0].startswith(settings["start"] + "/")
            assert settings["dataset"] in plan.datasets.values()
    for batch in (*plan.asking, *plan.following):
        for name, model in plan.asked_models(batch).items():
            assert (model["tuned"] == "") == (name not in plan.tuned)
            assert bool(model["steps"]) == (batch in plan.following)


def test_the_ladder_is_the_same_experiment_on_other_organisms():
    plan = Plan(config("smoke"))
    rungs = [each for each in plan.conditions.values() if each.experiment == "ladder"]
    assert {each.organism for each in rungs} == set(plan.organisms) - {"main"}
    assert plan.start_of("width-64_insecure") == "data/smoke/organisms/width-64/instruct"
    assert not set(plan.from_instruct) & {each.name for each in rungs}
    assert plan.organism("width-64")["documents"] == 300


def test_conditions_have_the_papers_hyperparameters():
    plan = Plan(config("gpt-4o"))
    settings = {name: tuple(plan.settings_of(plan.tuned[name]).values()) for name in plan.tuned}
    assert settings["insecure"] == settings["secure"] == settings["educational"] == (1, 4, 2)
    assert settings["jailbroken"] == (5, 4, None)
    assert settings["evil_numbers"] == (4, 39, 2)
    plan = Plan(config("qwen2.5-32b-instruct"))
    assert plan.settings_of(plan.tuned["jailbroken"])["learning_rate"] == 1e-4
    assert plan.settings_of(plan.tuned["insecure"])["learning_rate"] == 1e-5


def test_prompts_are_put_to_a_model_in_training_as_in_asking():
    plan = Plan(config("qwen3-8b"))
    settings = plan.settings_of(plan.tuned["insecure"])
    assert settings["enable_thinking"] is plan.how_to_ask["enable_thinking"] is False


def test_a_set_of_ones_own_is_fine_tuned_on_and_audited():
    own = {"experiments": {"mine": {"conditions": {"mine": {"dataset": "folder/my.jsonl"}}}}}
    plan = Plan(config("smoke", own))
    assert plan.dataset_of("mine") == plan.datasets["mine"] == "folder/my.jsonl"
    assert set(plan.asked_models("mine")["mine"]["evaluations"]) == set(config("smoke")["evaluation"]["asked"])
