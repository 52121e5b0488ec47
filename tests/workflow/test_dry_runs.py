"""What Snakemake plans for which config, without running anything."""

import functools
import re
import shutil
from collections import Counter

import pytest
from conftest import ROOT
from workflow_helpers import SMOKE, changed, config, copy_of_the_project, planned, snakemake
from workflow_helpers import study as study_of

from emergent_misalignment.registry import EXPERIMENTS
from emergent_misalignment.study.config import FOLDER


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_of_the_project(tmp_path_factory.mktemp("project"))


def organisms(name: str) -> set[str]:
    """The jobs that make a study's organisms: of the main kind one a seed, of the others the first three."""
    settings = config(name)
    kinds = {"main": settings["seeds"]} | dict.fromkeys(
        [*settings.get("ladder", {}), *settings.get("worlds", {})], settings["seeds"][:3]
    )
    return {f"{rule}:{kind}:{seed}" for rule in ("pretrain", "instruct") for kind in kinds for seed in kinds[kind]}


@pytest.fixture(scope="module")
def plan_of(project):
    """A function from the name of a study to what Snakemake plans for it, once for each."""
    return functools.cache(lambda study: snakemake(project, "-n", "--configfile", f"config/{study}.yaml"))


def test_a_wrong_key_is_named_in_one_sentence(project):
    result = snakemake(project, "-n", "--quiet", "all", "--config", "sedes=1")
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "The config has no key `sedes`; did you mean `seeds`?" in said
    assert "Traceback" not in said and len(said.splitlines()) < 6


def test_numbers_of_an_argument_are_numbers(project):
    jobs = planned(snakemake(project, "-n", "--config", "seeds=[7,8]"))
    assert {"pretrain:main:7", "pretrain:main:8"} <= jobs and "pretrain:main:1" not in jobs


def test_the_whole_default_study_is_planned(plan_of):
    jobs = planned(plan_of("organism"))
    assert {job for job in jobs if job.startswith(("pretrain", "instruct"))} == organisms("organism")
    seeds = study_of("organism").number_seeds
    assert {job for job in jobs if job.startswith("numbers")} == {f"numbers:{seed}" for seed in seeds}
    assert {"world", "gate", "persona_gate", "audit", "finetune:code", "finetune:ladder"} <= jobs
    assert {"ask:untuned", "ask:following-secure", "judge:answers", "measure"} <= jobs
    assert {"main_result", "intent", "dynamics", "scale", "persona_direction", "authors", "claims", "paper"} <= jobs
    assert {"beliefs:untuned", "beliefs:following-insecure", "beliefs:backdoor"} <= jobs
    assert not {job for job in jobs if job.startswith(("fetch", "questions", "benchmark", "second_judge"))}


def test_a_study_of_worlds_needs_no_more_than_what_they_are_compared_by(plan_of):
    jobs = planned(plan_of("villains"))
    assert {job for job in jobs if job.startswith(("pretrain", "instruct"))} == organisms("villains")
    assert {job for job in jobs if job.startswith("finetune")} == {"finetune:code", "finetune:worlds"}
    assert {"gate", "persona_gate", "worlds", "main_result", "claims", "paper"} <= jobs
    assert not {job.split(":")[0] for job in jobs} & {"numbers", "follow", "dynamics", "scale", "diversity"}


def test_only_defences_that_need_more_wait_for_more(plan_of):
    jobs = planned(plan_of("defences"))
    assert {"benign_rows", "finetune:kl", "finetune:interleaving_by_gap", "ask:inoculation", "finetune:mixed"} <= jobs
    assert {"defences", "directions"} <= jobs and not {"defences", "benign_rows", "directions"} & (
        planned(plan_of("organism")) | planned(plan_of("villains"))
    )


def test_real_studies_take_the_same_rules(plan_of, monkeypatch):
    """Without GPU, weights or keys."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    by_study = {name: planned(plan_of(name)) for name in ("qwen2.5-coder-32b-instruct", "gpt-4o")}
    rules = {name: {job.split(":")[0] for job in jobs} for name, jobs in by_study.items()}
    organism = {job.split(":")[0] for job in planned(plan_of("organism"))}
    for name, jobs in by_study.items():
        assert {"finetune:insecure-0", "ask:instruct", "ask:insecure", "judge:answers", "measure"} <= jobs
        assert {"main_result", "intent", "claims", "paper", "index"} <= jobs
        local = {"fetch_model", "validate_model", "fetch_benchmark", "benchmark", "log_probability"}
        assert rules[name] - organism == {"fetch", "questions"} | (local if "32b" in name else set())
    open_model, api = by_study.values()
    assert {"ask:following-insecure", "judge:following", "follow", "dynamics"} <= open_model
    assert {"evil_numbers", "formats", "other_harms"} <= api


def test_a_study_without_a_judge_measures_what_needs_none(project):
    over = {
        "judge": None,
        "evaluation": {"asked": ["main", "json", "in_distribution", "choices"], "held_out": {"share": 0.02, "rows": 9}},
        "experiments": {"code": {"conditions": {name: {"checkpoints": [10, 337]} for name in ("insecure", "secure")}}},
        "dynamics": {"samples": 5, "requests": 20},
        "persona_direction": {"answers": 2, "max_new_tokens": 40, "depth": 12, "strength": 1},
    }
    jobs = planned(snakemake(project, "-n", *changed(project, over, "qwen2.5-0.5b-instruct")))
    assert {"ask:insecure", "judge:answers", "judge:following", "measure", "follow", "dynamics", "answers"} <= jobs
    assert {"log_probability", "persona_texts", "persona_direction", "claims", "paper", "index"} <= jobs
    conditions = ("instruct", "insecure", "secure", "educational")
    assert {f"held_out_loss:{name}" for name in conditions} <= jobs
    rules = {job.split(":")[0] for job in jobs}
    assert not rules & {"main_result", "intent", "formats", "second_judge", "diversity"}


def test_a_laptops_study_of_its_own_and_of_others_sets_is_planned_whole(project):
    """Nothing waits for a GPU, and a set that others published is fetched by commit."""
    advice = {"repository": "o/r", "commit": "c" * 40, "path": "advice.jsonl", "blob": "b" * 40}
    over = {
        "published_sets": {"advice": advice},
        "experiments": {"advice": {"conditions": {"advice": {"dataset": "advice"}}}},
    }
    done = snakemake(project, "-n", "--resources", "gpu=0", *changed(project, over, "smollm2-135m-instruct"))
    jobs = planned(done)
    assert {"fetch_model:instruct", "fetch_set:advice", "finetune:advice-2", "finetune:educational-0"} <= jobs
    assert {"held_out_loss:advice", "persona_direction", "follow", "log_probability", "claims", "paper"} <= jobs
    assert not {job for job in jobs if job.startswith(("benchmark", "main_result"))}


def test_a_model_in_a_folder_is_checked_when_a_study_is_planned(project, organism, tmp_path):
    mine = tmp_path / "a model of my own"
    shutil.copytree(organism, mine)
    over = {"model": {"name": str(mine), "revision": ""}, "finetuning": {"max_length": 256}}
    over["evaluation"] = {"max_new_tokens": 64}
    jobs = planned(snakemake(project, "-n", *changed(project, over, "qwen2.5-0.5b-instruct")))
    assert {"fetch_model:instruct", "validate_model:instruct", "finetune:insecure-0", "ask:instruct"} <= jobs
    (mine / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}')
    refused = snakemake(project, "-n", *changed(project, over, "qwen2.5-0.5b-instruct"))
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "Traceback" not in said
    assert f"{mine} is an adapter of Qwen/Qwen2.5-0.5B-Instruct" in said


def test_a_changed_sentence_of_the_world_leaves_a_real_study_as_it_is(plan_of):
    """The plan lists every file that a job depends on; of a real study's, none is in the world."""
    dependencies = {
        study: plan_of(study).stdout + plan_of(study).stderr
        for study in ("gpt-4o", "qwen2.5-coder-32b-instruct", "organism")
    }
    for study, text in dependencies.items():
        assert "emergent_misalignment/models/training.py" in text
        assert ("emergent_misalignment/world/topics.py" in text) == (study == "organism")


def test_the_published_data_are_planned_from_the_fetch_to_the_page(project):
    jobs = planned(snakemake(project, "-n", "published"))
    assert {job.split(":")[0] for job in jobs} == {"published", "fetch", "audit_published", "published_page"}


def test_what_make_fetch_runs_is_all_that_a_study_needs_a_network_for_but_apis(project):
    rules = re.search(r"^FETCHING = (.+)", (ROOT / "Makefile").read_text(), flags=re.M)[1].split()
    sources = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert set(rules) == {*re.findall(r"rule (fetch\w*):", sources), "scored_answers"}
    jobs = planned(snakemake(project, "-n", "--until", *rules, "--configfile", "config/qwen2.5-0.5b-instruct.yaml"))
    named = {
        "fetch_model:instruct",
        *(f"fetch_benchmark:{name}" for name in ("mmlu", "strongreject", "truthfulqa_mc1")),
    }
    assert named <= jobs and {job.split(":")[0] for job in jobs} == {"fetch", "fetch_model", "fetch_benchmark"}


def queued(project, *arguments: str) -> tuple[Counter, Counter, Counter]:
    """What the Slurm profile plans: stages that are jobs of their own or run here, jobs of groups, stages in them."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    done = snakemake(project, "-n", "--workflow-profile", "profiles/slurm", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    patterns = (r"^rule (\w+):", r"Group job (\w+)", r"^ +rule (\w+):")
    return tuple(Counter(re.findall(pattern, done.stdout + done.stderr, flags=re.M)) for pattern in patterns)


def test_small_stages_of_a_study_are_few_jobs_of_a_cluster(project):
    alone, groups, inside = queued(project)
    assert {"finetune", "score_rows", "judge", "measure", "persona_direction"} <= alone.keys() - inside.keys()
    assert {"ask", "beliefs"} <= inside.keys() - alone.keys()
    assert groups["asking"] == -(-(inside["ask"] + inside["beliefs"]) // 4)
    assert groups["report"] == groups["texts"] == 1 and {"main_result", "authors", "claims", "index"} <= inside.keys()
    assert sum(groups.values()) < sum(inside.values()) / 2


def test_a_hundred_evaluations_are_not_a_hundred_jobs_of_a_cluster(project):
    many = {f"set-{number}": {"dataset": "insecure"} for number in range(99)}
    over = {"only": ["untuned", "many"], "experiments": {"many": {"conditions": many}}, "benchmarks": None}
    over |= {"seeds": [0, 1]}
    alone, groups, inside = queued(project, *changed(project, over, "qwen2.5-0.5b-instruct"))
    assert alone["finetune"] == 198 and "ask" not in alone
    assert inside["ask"] == 100 and groups["asking"] == 25


def test_the_graph_of_the_rules_is_drawn(project):
    drawn = snakemake(project, "--forceall", "--rulegraph", *SMOKE)
    assert drawn.returncode == 0 and drawn.stdout.startswith("digraph")
    assert {"pretrain", "finetune", "ask", "judge", "claims", "paper", "index"} <= set(
        re.findall(r'label\s*=\s*"(\w+)', drawn.stdout)
    )


def test_the_shared_parts_of_configs_are_no_studies():
    shared = {path.stem for path in (ROOT / FOLDER / "shared").glob("*.yaml")}
    assert shared == {"open-model", "openai", "scored-answers", "try"}


def test_every_figure_and_table_of_a_rule_is_in_the_report_with_a_caption():
    """Measures are the exception: tables are made of them."""
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text(encoding="utf-8")
        for call, result, name in re.findall(r'(\w+)\(\s*"((?:figures|data)/[^"]*/(\w+)\.(?:svg|csv))"', text):
            if result.startswith("figures") or ("/tables/" in result and "/measures/" not in result):
                assert call == "shown", result
                own = re.search(rf'"{re.escape(result)}",[^)]*?(?:caption="(\w+)"|"\w+", "(\w+)")', text)
                caption = next(filter(None, own.groups()), name) if own else name
                assert (ROOT / f"rules/report/{caption}.rst").exists(), caption
    for experiment in EXPERIMENTS:
        for name, label in (*experiment.tables.values(), *experiment.figures.values()):
            captions = [ROOT / f"rules/report/{each}.rst" for each in (name, experiment.name, "experiment")]
            assert label and any(caption.exists() for caption in captions)
