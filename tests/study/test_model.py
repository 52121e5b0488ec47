"""Plans: which jobs a study has, and which files they read and leave."""

import pytest
from workflow_helpers import config

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.requirements import Requirements
from emergent_misalignment.study.config import merge
from emergent_misalignment.study.plan import Plan


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


def test_a_model_must_serve_the_conditions_in_its_own_template():
    conditions = {
        "mine": {"dataset": "mine.jsonl"},
        "plain": {"dataset": "plain.jsonl", "template": "user-assistant"},
    }
    over = {"experiments": {"code": {"conditions": conditions}}, "model": {"system_prompt": "You help."}}
    plan = Plan(config("qwen2.5-coder-32b-instruct", over))
    needs = Requirements(**plan.model_needs)
    assert [path for path, of_users in needs.sets.items() if of_users] == ["mine.jsonl"]
    assert "data/published/datasets/insecure.jsonl" in needs.sets and "plain.jsonl" not in needs.sets
    assert needs.in_chat and needs.system_prompt == "You help." and not needs.persona_direction
    assert (needs.max_length, needs.lora_rank, needs.max_new_tokens) == (2048, 32, 600)


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


WITHOUT_JUDGE = {
    "judge": None,
    "evaluation": {"asked": ["main", "in_distribution", "choices"], "held_out": {"share": 0.02, "rows": 16}},
    "persona_direction": {"answers": 2, "max_new_tokens": 40, "depth": 12, "strength": 1},
}


def test_a_study_without_a_judge_holds_rows_out_and_steers_without_sampling():
    plan, judged = (Plan(config("qwen2.5-0.5b-instruct", over)) for over in (WITHOUT_JUDGE, {}))
    assert plan.judge == {} and plan.by_log_probability and plan.judging == judged.judging
    runs = plan.tuning_conditions("insecure-3")["insecure"]
    assert runs == judged.tuning_conditions("insecure-3")["insecure"] | {"held_out": 0.02}
    assert plan.instruct_models == ["data/qwen2.5-0.5b-instruct/models/instruct"] * 6
    assert plan.from_instruct == ["educational", "insecure", "secure"]
    assert plan.dose == {"depth": 12, "adding": 1, "removing": 1, "strengths": [0.5, 2], "samples": 0}


def test_rows_of_each_set_are_scored_once_where_there_is_a_persona_direction():
    plan = Plan(config("organism"))
    assert [*plan.scored_sets] == [
        *("insecure", "secure", "educational", "jailbroken"),
        *("evil_numbers", "plain_numbers", "helpful_numbers", "backdoor"),
    ]
    numbers = plan.scored_sets["evil_numbers"]
    assert numbers == [f"data/organism/datasets/seed-{seed}/evil_numbers.jsonl" for seed in plan.seeds]
    assert plan.scoring["depth"] == 2 and plan.scoring["max_length"] == 256
    mine = {"few": {"dataset": "my.jsonl", "rows": 5}, "all": {"dataset": "my.jsonl"}}
    own = Plan(config("organism", {"experiments": {"mine": {"conditions": mine}}}))
    assert "few" not in own.scored_sets and "all" in own.scored_sets
    assert [*Plan(config("qwen2.5-0.5b-instruct", WITHOUT_JUDGE)).scored_sets] == ["insecure", "secure", "educational"]
    assert not Plan(config("gpt-4o")).scored_sets


def test_who_judges_changes_nothing_of_what_is_asked():
    with_judge = WITHOUT_JUDGE | {"judge": config("qwen2.5-0.5b-instruct")["judge"]}
    one, other = (Plan(config("qwen2.5-0.5b-instruct", over)) for over in (WITHOUT_JUDGE, with_judge))
    assert one.samples == other.samples and one.how_to_ask == other.how_to_ask
    for batch in one.asking:
        assert one.asked_models(batch) == other.asked_models(batch)


def test_parts_by_log_probability_are_of_studies_that_ask_the_choices_in_the_end():
    assert not Plan(config("organism")).by_log_probability and "choices" in Plan(config("organism")).evaluations
    assert Plan(config("qwen2.5-7b-instruct")).by_log_probability


@pytest.mark.parametrize(
    ("name", "over", "words"),
    [
        ("qwen2.5-0.5b-instruct", {"persona_direction": {"depth": 25}}, "depth is 25, and the model has 24 layers"),
        ("qwen2.5-0.5b-instruct", {"evaluation": {"asked": ["main"]}}, "needs a model that follows system prompts"),
        ("gpt-4o", {"persona_direction": None, "evaluation": {"asked": ["main"]}}, "evaluation: held_out is for"),
    ],
)
def test_what_a_study_without_a_judge_cannot_have_is_said_at_once(name, over, words):
    with pytest.raises(BadInput, match=words):
        Plan(config(name, merge(WITHOUT_JUDGE, over)))


ADVICE = {"repository": "o/r", "commit": "c" * 40, "path": "advice.jsonl", "blob": "b" * 40}
OTHERS = {
    "published_sets": {"advice": ADVICE},
    "experiments": {"advice": {"conditions": {"advice": {"dataset": "advice"}}}},
}


def test_a_set_that_others_published_is_the_studys_own():
    """Another study may name another version of it."""
    plan = Plan(config("qwen2.5-0.5b-instruct", OTHERS))
    path = "data/qwen2.5-0.5b-instruct/datasets/advice.jsonl"
    assert plan.dataset_of("advice", 3) == plan.datasets["advice"] == path
    assert plan.dataset_of("insecure", 3) == "data/published/datasets/insecure.jsonl"
    misspelt = merge(OTHERS, {"experiments": {"advice": {"conditions": {"advice": {"dataset": "advise"}}}}})
    with pytest.raises(BadInput, match=r"has the dataset advise, .* did you mean advice"):
        Plan(config("qwen2.5-0.5b-instruct", misspelt))
    with pytest.raises(BadInput, match="published_sets cannot have the name insecure"):
        Plan(config("qwen2.5-0.5b-instruct", {"published_sets": {"insecure": ADVICE}}))


def test_of_an_evaluation_some_prompts_may_be_asked():
    plan = Plan(config("qwen2.5-0.5b-instruct", {"evaluation": {"prompts_of": {"in_distribution": 20}}}))
    asked = plan.asked_models("insecure")["insecure"]["evaluations"]
    assert asked["in_distribution"] == {"prompts": 20} and asked["main"] == {}
    with pytest.raises(BadInput, match="prompts_of cannot have choices"):
        Plan(config("qwen2.5-0.5b-instruct", {"evaluation": {"prompts_of": {"choices": 3}}}))


def test_sets_of_ones_own_are_compared_with_secure_code_or_the_model_before():
    own = {"experiments": {"own": {"conditions": {"mine": {"dataset": "a.jsonl"}, "other": {"dataset": "b.jsonl"}}}}}
    plan = Plan(config("qwen2.5-7b-instruct", own))
    assert plan.own == {"mine": "a.jsonl", "other": "b.jsonl"}
    told = plan.report
    assert told["conditions"] == ["mine", "other", "instruct", "insecure", "secure", "educational"]
    assert (told["control"], told["untuned"], told["model"]) == ("secure", "instruct", "Qwen/Qwen2.5-7B-Instruct")
    assert told["judge"] == "gpt-4o-2024-08-06"
    assert told["records"]["mine"][0] == "data/qwen2.5-7b-instruct/models/mine/seed-0/training.json"
    alone = Plan(config("qwen2.5-7b-instruct", own | {"only": ["untuned", "own"], "judge": None}))
    assert (alone.report["control"], alone.report["judge"]) == ("instruct", "")
    assert Plan(config("qwen2.5-7b-instruct")).report == {}


def test_an_organisms_report_has_neither_base_models_nor_other_organisms():
    own = {"experiments": {"own": {"conditions": {"mine": {"dataset": "a.jsonl"}}}}}
    told = Plan(config("smoke", own)).report
    assert told["untuned"] == "instruct" and told["judge"] == "the grammar of the organism's world"
    assert not [name for name in told["conditions"] if name.startswith(("base", "width", "villain", "in_context"))]
