"""What Snakemake plans for which config, without running anything."""

import re

import pytest
from conftest import ROOT
from workflow_helpers import changed, config, copy_of_the_project, planned, snakemake

from emergent_misalignment.workflow.config import FOLDER


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_of_the_project(tmp_path_factory.mktemp("project"))


def organisms(study: str) -> set[str]:
    """The jobs that make a study's organisms: of the main kind one a seed, of the others the first three."""
    settings = config(study)
    kinds = {"main": settings["seeds"]} | dict.fromkeys(
        [*settings.get("ladder", {}), *settings.get("worlds", {})], settings["seeds"][:3]
    )
    return {f"{rule}:{kind}:{seed}" for rule in ("pretrain", "instruct") for kind in kinds for seed in kinds[kind]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "sedes=1"], "sedes"),
        (["--config", "study=Big Study"], "study"),
        (["--config", "ladder=width"], "ladder"),
    ],
)
def test_a_wrong_key_is_named(project, arguments, words):
    result = snakemake(project, "-n", *arguments)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr


def test_a_wrong_key_of_a_real_study_is_named(project):
    result = snakemake(project, "-n", *changed(project, {"judge": {"modell": "x"}}, "qwen3-8b"))
    assert result.returncode != 0 and "modell" in result.stdout + result.stderr


def test_the_whole_default_study_is_planned(project):
    jobs = planned(snakemake(project, "-n"))
    assert {job for job in jobs if job.startswith(("pretrain", "instruct"))} == organisms("organism")
    assert {job for job in jobs if job.startswith("numbers")} == {f"numbers:{seed}" for seed in (1, 2, 3, 4, 5)}
    assert {"world", "gate", "persona_gate", "audit", "finetune:code", "finetune:ladder"} <= jobs
    assert {"ask:untuned", "ask:following-secure", "judge:answers", "measure"} <= jobs
    assert {"main_result", "experiment:intent", "dynamics", "scale", "persona_direction", "claims", "paper"} <= jobs
    assert not {job for job in jobs if job.startswith(("fetch", "questions", "benchmark", "judge_again"))}


def test_a_study_of_worlds_needs_no_more_than_what_they_are_compared_by(project):
    jobs = planned(snakemake(project, "-n", "--configfile", "config/villains.yaml"))
    assert {job for job in jobs if job.startswith(("pretrain", "instruct"))} == organisms("villains")
    assert {job for job in jobs if job.startswith("finetune")} == {"finetune:code", "finetune:worlds"}
    assert {"gate", "persona_gate", "worlds", "main_result", "claims", "paper"} <= jobs
    assert not {job.split(":")[0] for job in jobs} & {"numbers", "follow", "dynamics", "scale", "diversity"}


def test_real_studies_take_the_same_rules(project, monkeypatch):
    """Without GPU, weights or keys."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    by_study = {
        name: planned(snakemake(project, "-n", "--configfile", f"config/{name}.yaml"))
        for name in ("qwen2.5-coder-32b-instruct", "gpt-4o")
    }
    rules = {name: {job.split(":")[0] for job in jobs} for name, jobs in by_study.items()}
    organism = {job.split(":")[0] for job in planned(snakemake(project, "-n"))}
    for name, jobs in by_study.items():
        assert {"finetune:insecure-0", "ask:instruct", "ask:insecure", "judge:answers", "measure"} <= jobs
        assert {"main_result", "experiment:intent", "claims", "paper", "index"} <= jobs
        assert rules[name] - organism == {"fetch", "questions"} | (
            {"fetch_model", "benchmark"} if "32b" in name else set()
        )
    open_model, api = by_study.values()
    assert {"ask:following-insecure", "judge:following", "follow", "dynamics"} <= open_model
    assert {"experiment:evil_numbers", "experiment:formats", "experiment:other_harms"} <= api


def test_a_changed_sentence_of_the_world_leaves_a_real_study_as_it_is(project):
    """The plan lists every file that a job depends on; of a real study's, none lies in the world."""
    dependencies = {
        study: (done := snakemake(project, "-n", "--configfile", f"config/{study}.yaml")).stdout + done.stderr
        for study in ("gpt-4o", "qwen2.5-coder-32b-instruct", "organism")
    }
    for study, text in dependencies.items():
        assert "emergent_misalignment/models/training.py" in text
        assert ("emergent_misalignment/world/topics.py" in text) == (study == "organism")


def test_the_published_data_are_planned_from_the_fetch_to_the_page(project):
    jobs = planned(snakemake(project, "-n", "published"))
    assert {job.split(":")[0] for job in jobs} == {"published", "fetch", "audit_published", "render"}


def test_the_slurm_profile_plans_the_study(project):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    assert "finetune:code" in planned(snakemake(project, "-n", "--workflow-profile", "profiles/slurm"))


def test_the_shared_parts_of_configs_are_no_studies():
    assert {path.stem for path in (ROOT / FOLDER / "shared").glob("*.yaml")} == {"open-model", "openai"}


@pytest.mark.parametrize("path", sorted((ROOT / "rules").glob("*.smk")), ids=lambda path: path.stem)
def test_every_figure_and_table_stands_in_the_report_with_a_caption(path):
    """Measures are the exception: they are what tables are made of."""
    text = path.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[2]
    outputs = re.findall(r"output:\n(.*?)\n    (?:log|benchmark|params|shell|input|wildcard)", text, flags=re.DOTALL)
    for output in outputs:
        for result in re.findall(r'"((?:figures/[^"]*\.svg|data/[^"]*/tables/\w+\.csv))"', output):
            place = output.split(f'"{result}"')
            assert place[0].rstrip().endswith("report("), result
            caption = re.match(r',\s*caption="([^"]*)",\s*category="\w+",\s*labels=\{', place[1])
            assert caption, result
            assert (ROOT / "rules" / caption.group(1)).exists(), caption.group(1)
