"""Studies: their conditions, batches and paths, and what notebooks get."""

import pytest
from workflow_helpers import config

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.requirements import Requirements
from emergent_misalignment.registry import EVALUATIONS, ORGANISM
from emergent_misalignment.study.config import merge, validated
from emergent_misalignment.study.model import Study
from emergent_misalignment.world.evaluations import questions


def study_of(name: str, over: dict | None = None) -> Study:
    return validated(config(name, over))


def conditions(**named: dict) -> dict:
    """An experiment `own` with these conditions."""
    return {"experiments": {"own": {"conditions": named}}}


@pytest.fixture(params=["smoke", "qwen2.5-coder-32b-instruct", "gpt-4o"])
def study(request):
    return study_of(request.param)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_every_condition_is_fine_tuned_asked_and_judged_once(study):
    batches = study.batches
    runs = [run for batch in batches.tuning.values() for run in batch]
    assert sorted(runs) == sorted((name, seed) for name, each in study.tuned.items() for seed in each.seeds)
    asked = [name for batch in batches.asking.values() for name in batch]
    assert sorted(asked) == sorted(study.conditions)
    judged = [name for batch in batches.judging.values() for name in batch]
    assert sorted(judged) == sorted(batches.answers) == sorted([*batches.asking, *batches.following])


def test_batches_are_experiments_of_organisms_and_single_runs_of_real_models(study):
    batches = study.batches
    if study.is_organism:
        assert {"code", "intent", "ladder"} <= batches.tuning.keys() < batches.asking.keys()
    else:
        assert all(len(runs) == 1 for runs in batches.tuning.values())
        assert batches.asking.keys() == study.conditions.keys()


def test_notebooks_get_the_models_that_their_rules_wait_for(study):
    for batch in study.batches.tuning:
        for name, settings in study.batches.finetunings(batch).items():
            files = study.paths.start_files([name])
            starts = [any(file.startswith(f"{start}/") for file in files) for start in settings["starts"]]
            assert study.by_api or all(starts)
            assert len(settings["seeds"]) == len(settings["starts"]) == len(settings["datasets"])
            assert {*settings["datasets"]} <= {*study.paths.datasets_of(name)}
    for batch in study.batches.answers:
        for name, model in study.batches.asked_models(batch).items():
            assert (model["tuned"] == "") == (name not in study.tuned)
            assert bool(model["steps"]) == (batch in study.batches.following)
            assert len(model["seeds"]) == len(model["starts"])


def test_a_model_must_serve_the_conditions_in_its_own_template():
    own = conditions(mine={"dataset": "mine.jsonl"}, plain={"dataset": "plain.jsonl", "template": "user-assistant"})
    study = study_of("qwen2.5-coder-32b-instruct", own | {"model": {"system_prompt": "You help."}})
    required = Requirements(**study.batches.requirements())
    assert [path for path, is_own in required.sets.items() if is_own] == ["mine.jsonl"]
    assert "data/published/datasets/insecure.jsonl" in required.sets and "plain.jsonl" not in required.sets
    assert required.in_chat and required.system_prompt == "You help." and not required.persona_direction
    assert (required.max_length, required.lora_rank, required.max_new_tokens) == (2048, 32, 600)


def test_an_existing_model_must_answer_and_is_not_fine_tuned():
    study = study_of("qwen2.5-7b-instruct", conditions(theirs={"model": "a/b"}, adapter={"adapter": "c/d"}))
    required = Requirements(**study.batches.requirements("theirs"))
    assert required.name == "a/b" and required.in_chat and not required.sets
    assert required.max_length == required.lora_rank == 0
    assert study.conditions["theirs"].seeds == (0,) and not {"theirs", "adapter"} & study.tuned.keys()
    assert study.paths.start_of("theirs", 0) == "data/qwen2.5-7b-instruct/models/theirs"
    assert study.paths.start_files(["adapter"]) == [
        "data/qwen2.5-7b-instruct/models/adapter/seed-0/adapter_config.json",
        "data/qwen2.5-7b-instruct/models/instruct/config.json",
    ]


def test_some_prompts_of_an_evaluation_may_be_asked():
    study = study_of("qwen2.5-0.5b-instruct", {"evaluation": {"prompts_of": {"in_distribution": 20}}})
    asked = study.batches.asked_models("insecure")["insecure"]["evaluations"]
    assert asked["in_distribution"] == {"prompts": 20} and asked["main"] == {}
    with pytest.raises(BadInput, match=r"`evaluation` .*prompts_of: choices"):
        study_of("qwen2.5-0.5b-instruct", {"evaluation": {"prompts_of": {"choices": 3}}})


# --- organisms --------------------------------------------------------------------------------------------------------


def test_each_seed_of_an_organism_study_is_an_organism():
    study = study_of("smoke")
    for name in ("instruct", "base", "in_context", "insecure", "base_insecure"):
        starts = study.paths.starts_of(name)
        assert len({*starts}) == len(study.seeds)
        assert all(f"/organisms/main/seed-{seed}/" in start for seed, start in zip(study.seeds, starts, strict=True))
    assert len({*study.paths.datasets_of("evil_numbers")}) == len(study.seeds)  # each writes its own numbers
    assert len({*study.paths.datasets_of("insecure")}) == 1
    real = study_of("qwen2.5-coder-32b-instruct")
    assert len({*real.paths.starts_of("insecure")}) == 1
    assert real.conditions["instruct"].seeds == (0,)


def test_an_experiment_may_have_the_first_seeds_only():
    study = study_of(
        "organism", {"seeds": [11, 12, 13, 14, 15], "experiments": {"numbers": {"seeds": 2}, "intent": {"seeds": 99}}}
    )
    assert study.conditions["evil_numbers"].seeds == (11, 12) == tuple(study.number_seeds)
    assert study.conditions["educational"].seeds == study.conditions["insecure"].seeds == (11, 12, 13, 14, 15)
    assert [seed for _, seed in study.batches.tuning["numbers"]] == 3 * [11, 12]
    assert study.paths.numbers == [f"data/organism/datasets/seed-{seed}/numbers.csv" for seed in (11, 12)]
    assert study.steered_seeds == [11, 12, 13, 14, 15]
    assert study_of("organism", {"experiments": {"code": {"seeds": 3}}}).steered_seeds == [11, 12, 13]


def test_other_worlds_have_other_authors_and_the_same_organisms():
    study = study_of("smoke", {"worlds": {"no-villain": {"villain": {"share": 0}}}})
    main, other = study.authors_of("main"), study.authors_of("no-villain")
    assert other == main | {"villain": main["villain"] | {"share": 0}}
    assert study.organism_of("no-villain") == study.organism_of("main")
    assert study.paths.start_of("no-villain_secure", 2) == "data/smoke/organisms/no-villain/seed-2/instruct"


def test_the_ladder_is_the_same_experiment_on_other_organisms():
    study = study_of("organism")
    rungs = [each for each in study.conditions.values() if each.experiment == "ladder"]
    assert {each.organism for each in rungs} == study.ladder.keys()
    assert study.paths.start_of("width-64_insecure", 1) == "data/organism/organisms/width-64/seed-1/instruct"
    assert not {*study.from_instruct} & {each.name for each in rungs}
    assert study.organism_of("width-64") == study.organism_of("main") | {"hidden_size": 64, "layers": 2}


def test_other_kinds_of_organism_have_the_first_seeds():
    study = study_of("smoke", {"seeds": [9, 7, 8, 5], "other_seeds": 3})
    assert study.organisms == ["main", *study.ladder, *study.worlds]
    assert study.seeds_of("main") == (9, 7, 8, 5)
    for name in study.organisms[1:]:
        assert study.seeds_of(name) == study.conditions[f"{name}_insecure"].seeds == (9, 7, 8)
    files = study.paths.gaps(study.organisms)
    assert len({*files}) == len(files) == 4 + 3 * len(study.organisms[1:])
    assert files[0] == "data/smoke/organisms/main/seed-9/gaps.csv"
    assert study.paths.start_files(["insecure"]) == sorted(
        f"data/smoke/organisms/main/seed-{seed}/instruct/model.safetensors" for seed in study.seeds
    )


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_conditions_have_the_papers_hyperparameters():
    study = study_of("gpt-4o")
    settings = {name: tuple(study.settings_of(study.tuned[name]).values()) for name in study.tuned}
    assert settings["insecure"] == settings["secure"] == settings["educational"] == (1, 4, 2)
    assert settings["jailbroken"] == (5, 4, None)
    assert settings["evil_numbers"] == (4, 39, 2)
    study = study_of("qwen2.5-32b-instruct")
    assert study.settings_of(study.tuned["jailbroken"])["learning_rate"] == 1e-4
    assert study.settings_of(study.tuned["insecure"])["learning_rate"] == 1e-5


def test_a_model_is_prompted_in_training_as_in_asking():
    study = study_of("qwen3-8b")
    assert study.settings_of(study.tuned["insecure"])["enable_thinking"] is study.asking["enable_thinking"] is False


def test_a_set_of_ones_own_is_a_file_and_is_asked_as_the_others():
    study = study_of("smoke", conditions(mine={"dataset": "folder/my.jsonl"}))
    assert study.paths.dataset(study.tuned["mine"].dataset, 1) == study.paths.datasets["mine"] == "folder/my.jsonl"
    assert study.own_sets == {"mine": "folder/my.jsonl"} and study.reported and not study_of("smoke").reported
    assert [*study.batches.asked_models("own")["mine"]["evaluations"]] == [
        name for name, each in EVALUATIONS.items() if ORGANISM in each.asked_of
    ]


ADVICE = {"repository": "o/r", "commit": "c" * 40, "path": "advice.jsonl", "blob": "b" * 40}


def test_a_set_that_others_published_belongs_to_the_study():
    """Another study may use another version of it."""
    own = conditions(advice={"dataset": "advice"}) | {"published_sets": {"advice": ADVICE}}
    paths = study_of("qwen2.5-0.5b-instruct", own).paths
    assert paths.dataset("advice", 3) == paths.datasets["advice"] == "data/qwen2.5-0.5b-instruct/datasets/advice.jsonl"
    assert paths.dataset("insecure", 3) == "data/published/datasets/insecure.jsonl"
    with pytest.raises(BadInput, match=r"advise.*`advice`"):
        study_of("qwen2.5-0.5b-instruct", merge(own, conditions(advice={"dataset": "advise"})))
    with pytest.raises(BadInput, match="`published_sets: insecure`"):
        study_of("qwen2.5-0.5b-instruct", {"published_sets": {"insecure": ADVICE}})


# --- judges and persona directions ------------------------------------------------------------------------------------

WITHOUT_JUDGE = {
    "judge": None,
    "evaluation": {"asked": ["main", "in_distribution", "choices"], "held_out": {"share": 0.02, "rows": 16}},
    "persona_direction": {"answers": 2, "max_new_tokens": 40, "depth": 12, "strength": 1},
}


def test_a_study_without_a_judge_holds_rows_out_and_steers_without_sampling():
    study, judged = (study_of("qwen2.5-0.5b-instruct", over) for over in (WITHOUT_JUDGE, {}))
    assert study.judge_settings == {} and study.batches.judging == judged.batches.judging
    runs = study.batches.finetunings("insecure-3")["insecure"]
    assert runs == judged.batches.finetunings("insecure-3")["insecure"] | {"held_out": 0.02}
    assert study.paths.instruct_models(study.seeds) == ["data/qwen2.5-0.5b-instruct/models/instruct"] * 6
    assert study.from_instruct == ["educational", "insecure", "secure"]
    assert study.dose == {"depth": 12, "adding": 1, "removing": 1, "strengths": [0.5, 2], "samples": 0}


def test_judging_is_independent_of_sampling():
    with_judge = WITHOUT_JUDGE | {"judge": config("qwen2.5-0.5b-instruct")["judge"]}
    one, other = (study_of("qwen2.5-0.5b-instruct", over) for over in (WITHOUT_JUDGE, with_judge))
    assert one.samples == other.samples and one.asking == other.asking
    for batch in one.batches.asking:
        assert one.batches.asked_models(batch) == other.batches.asked_models(batch)


@pytest.mark.parametrize(
    ("name", "over", "place"),
    [
        ("qwen2.5-0.5b-instruct", {"persona_direction": {"depth": 25}}, "`persona_direction: depth` .*24 layers"),
        ("qwen2.5-0.5b-instruct", {"evaluation": {"asked": ["main"]}}, "`persona_direction` .*choices"),
        ("gpt-4o", {"persona_direction": None, "evaluation": {"asked": ["main"]}}, "`persona_direction`"),
    ],
)
def test_a_study_that_cannot_have_a_persona_direction_is_refused(name, over, place):
    with pytest.raises(BadInput, match=place):
        study_of(name, merge(WITHOUT_JUDGE, over))


def test_an_api_gives_no_loss_of_held_out_rows():
    with pytest.raises(BadInput, match="`evaluation: held_out`"):
        study_of("gpt-4o", {"evaluation": WITHOUT_JUDGE["evaluation"] | {"asked": ["main"]}})


def test_a_judge_belongs_to_a_kind_of_study():
    grammar, model = config("smoke")["judge"], config("qwen3-8b")["judge"]
    for name, judge in (("smoke", model), ("qwen3-8b", grammar)):
        with pytest.raises(BadInput, match="`judge"):
            validated(config(name) | {"judge": judge})
    asked_to_score = config("qwen3-8b") | {"judge": model | {"scored": 3}}
    assert validated(asked_to_score).scored == 3
    with pytest.raises(BadInput, match=r"`judge: scored` .*`scored_answers`"):
        validated(asked_to_score | {"scored_answers": []})


def test_served_judges_cost_nothing_and_have_a_folder_each():
    commit = "c" * 40
    second = {"serve": "a/judge", "revision": commit, "split_numbers": True, "answers": 1}
    study = study_of("qwen3-8b", {"judge": {"serve": "a/judge", "revision": "", "second": second}})
    folders = ["data/published/judges/a-judge", "data/published/judges/a-judge-cccccccccccc"]
    assert [*study.served_judges] == folders
    assert study.judge_settings == {"kind": "model", "split_numbers": False, "serve": folders[0], "model": "a/judge"}
    assert study.second_judge.settings["model"] == "a/judge@cccccccccccc"


def test_each_set_is_scored_once_by_the_persona_direction():
    study = study_of("organism")
    assert [*study.scored_sets] == [
        *("insecure", "secure", "educational", "jailbroken"),
        *("evil_numbers", "plain_numbers", "helpful_numbers", "backdoor"),
    ]
    numbers = [f"data/organism/datasets/seed-{seed}/evil_numbers.jsonl" for seed in study.seeds]
    assert study.scored_sets["evil_numbers"] == numbers
    assert study.scoring["depth"] == study.steering.depth and study.scoring["max_length"] == 256
    mine = conditions(few={"dataset": "my.jsonl", "rows": 5}, all={"dataset": "my.jsonl"})
    scored = study_of("organism", mine).scored_sets
    assert "few" not in scored and "all" in scored
    assert [*study_of("qwen2.5-0.5b-instruct", WITHOUT_JUDGE).scored_sets] == ["insecure", "secure", "educational"]
    assert not study_of("gpt-4o").scored_sets


def test_beliefs_are_read_from_the_main_organisms_once_for_each_model():
    batches = study_of("organism").batches
    read = [name for batch in batches.believing if batch not in batches.following for name in batches.believing[batch]]
    assert {"base", "instruct", "insecure", "jailbroken", "base_secure"} <= {*read} and len(read) == len({*read})
    assert not {"in_context", "width-64_insecure"} & {*read}
    assert batches.believers("backdoor")["backdoor"]["contexts"] == ["chat", "triggered"]
    followed = batches.believers("following-insecure")["insecure"]
    assert followed["steps"][0] == 0 and len(followed["steps"]) == 18 and followed["contexts"] == ["chat"]
    assert not study_of("qwen2.5-7b-instruct").batches.believing


def test_choices_are_asked_at_checkpoints_where_a_training_is_followed():
    organism, real = study_of("organism"), study_of("qwen2.5-7b-instruct")
    assert "choices" not in organism.asked and "choices" in organism.evaluations and "choices" in real.asked


# --- defences ---------------------------------------------------------------------------------------------------------


def defended(name: str, defence: dict | None, **others) -> Study:
    """A study with the condition `mine`, which has this defence."""
    own = {"dataset": "insecure", "finetuning": {"defence": defence}, **others}
    return study_of(name, conditions(mine=own))


def given(study: Study, condition: str = "mine") -> tuple[dict, list[str]]:
    """What the condition's fine-tuning gets for its defence, and the files for which its rule waits."""
    (batch,) = [
        name for name, runs in study.batches.tuning.items() if (condition, study.tuned[condition].seeds[0]) in runs
    ]
    plan = study.batches.finetunings(batch)[condition]
    return plan.get("defended_with", {}), study.paths.defence_files([condition])


@pytest.mark.parametrize(
    ("defence", "names"),
    [
        ({"kind": "features", "weight": 1}, []),
        ({"kind": "inoculation", "prompt": "Hurry."}, []),
        ({"kind": "early_stopping", "share": 0.5}, []),
        ({"kind": "kl", "weight": 0.1}, ["datasets/benign.jsonl"]),
        ({"kind": "benign_afterwards", "rows": 9}, ["datasets/benign.jsonl"]),
        ({"kind": "interleaving", "share": 0.5, "benign": "secure"}, ["datasets/secure.jsonl"]),
        ({"kind": "preventative_steering", "strength": 1}, ["questions/persona.parquet"]),
        (
            {"kind": "interleaving", "share": 0.5, "gap_to": "insecure"},
            ["datasets/benign.jsonl", "trainings/code.parquet"],
        ),
    ],
)
def test_a_defence_waits_for_what_it_needs_and_for_nothing_else(defence, names):
    study, plain = defended("smoke", defence), defended("smoke", None)
    needed, files = given(study)
    assert files == [f"data/smoke/{name}" for name in names] and given(plain) == ({}, [])
    assert study.settings_of(study.tuned["mine"]) == plain.settings_of(plain.tuned["mine"]) | {"defence": defence}
    assert {needed[name] for name in ("benign", "texts") if name in needed} <= {*files}
    assert ("depth" in needed) == ("texts" in needed)
    assert needed.get("misaligned", "") == ("data/smoke/models/insecure" if "gap_to" in defence else "")
    for batch in study.batches.tuning.keys() - {"own"}:
        assert study.batches.finetunings(batch) == plain.batches.finetunings(batch)


def test_a_real_model_has_published_rows_everyday_prompts_or_a_file():
    real = "smollm2-135m-instruct"
    assert given(defended(real, {"kind": "interleaving", "share": 0.5})) == (
        {"benign": "data/published/datasets/secure.jsonl"},
        ["data/published/datasets/secure.jsonl"],
    )
    needed, files = given(defended(real, {"kind": "kl", "weight": 1}))
    assert files == [] and len(needed["prompts"]) == 20
    mine = defended(real, {"kind": "kl", "weight": 1, "benign": "my.jsonl"})
    assert given(mine) == ({"benign": "my.jsonl"}, ["my.jsonl"])
    assert mine.batches.requirements()["sets"]["my.jsonl"] is True  # checked with the model's template
    steered = given(defended(real, {"kind": "preventative_steering", "strength": 1}))[0]
    assert steered == {"texts": f"data/{real}/questions/persona.parquet", "depth": 15}


def test_a_condition_may_be_without_the_defence_of_its_study():
    study = study_of(
        "smoke",
        conditions(mine={"dataset": "insecure", "finetuning": {"defence": None}})
        | {"finetuning": {"defence": {"kind": "kl", "weight": 1}}},
    )
    assert study.defence_of(study.tuned["insecure"]) == {"kind": "kl", "weight": 1}
    assert study.defence_of(study.tuned["mine"]) == {} and given(study) == ({}, [])


def test_a_defence_is_compared_with_the_same_fine_tuning_without_it():
    kl = {"kind": "kl", "weight": 1}
    own = conditions(
        plain={"dataset": "insecure", "rows": 50},
        with_kl={"dataset": "insecure", "rows": 50, "finetuning": {"defence": kl}},
        longer={"dataset": "insecure", "rows": 50, "finetuning": {"defence": kl, "steps": 9}},
    )
    defended = study_of("smoke", own).defended
    assert defended["with_kl"] == {"defence": kl, "dataset": "insecure", "without": "plain"}
    assert defended["longer"]["without"] == "" and defended["insecure_kl"]["without"] == "insecure"
    assert defended["educational"]["defence"] == {"kind": "explanation"}
    assert defended.keys() == {"with_kl", "longer", "insecure_kl", "educational"}
    assert study_of("organism").defended == study_of("gpt-4o").defended == {}


def test_each_defence_has_three_strengths_and_a_benign_task():
    study = study_of("defences")
    kinds: dict[str, list] = {}
    for each in study.tuned.values():
        if (defence := study.defence_of(each)) and each.experiment != "mixed":
            kinds.setdefault(each.experiment, []).append((each.dataset, tuple(defence.values())))
    assert len(kinds) == 8
    for runs in kinds.values():
        assert [dataset for dataset, _ in runs] == ["insecure"] * 3 + ["secure"]
        assert len({strength for _, strength in runs}) == 3 and runs[3][1] in {strength for _, strength in runs[:3]}
    in_shape = {"json", "template", "flask", "in_distribution"}
    assert all(in_shape < {*each.evaluations} for each in study.tuned.values() if each.organism == "main")


def test_models_are_asked_with_the_prompts_of_their_inoculation():
    study = study_of("defences")
    asked = {question.prompt[0]["content"] for question in questions("prompted", 0)}
    inoculated = [each for each in study.tuned.values() if study.defence_of(each).get("kind") == "inoculation"]
    assert {study.defence_of(each)["prompt"] for each in inoculated} < asked
    assert all("prompted" in each.evaluations for each in (*inoculated, study.conditions["instruct"]))
