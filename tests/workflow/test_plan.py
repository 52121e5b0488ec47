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
            files = plan.start_files([name])
            assert plan.by_api or all(any(file.startswith(f"{each}/") for file in files) for each in settings["starts"])
            assert len(settings["seeds"]) == len(settings["starts"]) == len(settings["datasets"])
            assert set(settings["datasets"]) <= set(plan.datasets_of(name))
    for batch in (*plan.asking, *plan.following):
        for name, model in plan.asked_models(batch).items():
            assert (model["tuned"] == "") == (name not in plan.tuned)
            assert bool(model["steps"]) == (batch in plan.following)
            assert len(model["seeds"]) == len(model["starts"])


def test_each_seed_of_an_organism_study_is_an_organism():
    plan = Plan(config("smoke"))
    for name in ("instruct", "base", "in_context", "insecure", "base_insecure"):
        starts = plan.starts_of(name)
        assert len(set(starts)) == len(plan.seeds)
        assert all(f"/organisms/main/seed-{seed}/" in start for seed, start in zip(plan.seeds, starts, strict=True))
    assert len(set(plan.datasets_of("evil_numbers"))) == len(plan.seeds)  # each writes its own numbers
    assert len(set(plan.datasets_of("insecure"))) == 1
    real = Plan(config("qwen2.5-coder-32b-instruct"))
    assert len(set(real.starts_of("insecure"))) == 1
    assert real.conditions["instruct"].seeds == (0,)


def test_other_worlds_have_other_authors_and_the_same_organisms():
    plan = Plan(config("smoke", {"worlds": {"no-villain": {"villain": {"share": 0}}}}))
    main, other = plan.authors("main"), plan.authors("no-villain")
    assert other["villain"] == main["villain"] | {"share": 0}
    assert {name: other[name] for name in other if name != "villain"} == {
        name: main[name] for name in main if name != "villain"
    }
    assert plan.organism("no-villain") == plan.organism("main")
    assert plan.start_of("no-villain_secure", 2) == "data/smoke/organisms/no-villain/seed-2/instruct"


def test_the_ladder_is_the_same_experiment_on_other_organisms():
    plan = Plan(config("smoke"))
    rungs = [each for each in plan.conditions.values() if each.experiment == "ladder"]
    assert {each.organism for each in rungs} == set(plan.config["ladder"])
    assert plan.start_of("width-64_insecure", 1) == "data/smoke/organisms/width-64/seed-1/instruct"
    assert not set(plan.from_instruct) & {each.name for each in rungs}
    assert plan.organism("width-64")["documents"] == 300


def test_other_kinds_of_organism_have_the_first_seeds_and_all_have_a_file_each():
    plan = Plan(config("smoke", {"seeds": [9, 7, 8, 5]}))
    assert plan.organisms == ["main", *plan.config["ladder"], *plan.config["worlds"]]
    assert plan.seeds_of("main") == (9, 7, 8, 5)
    for name in plan.organisms[1:]:
        assert plan.seeds_of(name) == plan.conditions[f"{name}_insecure"].seeds == (9, 7, 8)
    files = plan.of_organisms(plan.organisms, "gaps.csv")
    assert len(set(files)) == len(files) == 4 + 3 * len(plan.organisms[1:])
    assert files[0] == "data/smoke/organisms/main/seed-9/gaps.csv"
    assert plan.start_files(["insecure"]) == sorted(
        f"data/smoke/organisms/main/seed-{seed}/instruct/model.safetensors" for seed in plan.seeds
    )


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
    assert plan.dataset_of("mine", 1) == plan.datasets["mine"] == "folder/my.jsonl"
    assert set(plan.asked_models("mine")["mine"]["evaluations"]) == set(config("smoke")["evaluation"]["asked"])
