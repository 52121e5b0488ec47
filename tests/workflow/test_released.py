"""Organisms that a study releases, and that later studies start from."""

import shutil

import pytest
from workflow_helpers import SMOKE, changed, copy_of_the_project, planned, snakemake, study

pytestmark = pytest.mark.slow
STUDY = study("smoke")
PLACES = [f"{name}/seed-{seed}" for name in STUDY.organisms for seed in STUDY.seeds_of(name)]
MODELS = [f"data/smoke/organisms/{place}/{stage}" for place in PLACES for stage in ("base", "instruct")]


@pytest.fixture(scope="module")
def released(smoke, tmp_path_factory):
    """A copy of the project with the smoke study's organisms released, and nothing computed."""
    done = snakemake(smoke, "--cores", "2", "organisms", *SMOKE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = copy_of_the_project(tmp_path_factory.mktemp("released"))
    shutil.copytree(smoke / "organisms", folder / "organisms", dirs_exist_ok=True)
    return folder


def test_a_study_starts_from_the_bytes_that_another_trained(smoke, released):
    done = snakemake(released, "--cores", "1", "data/smoke/organisms/gates.csv", f"{MODELS[1]}/config.json", *SMOKE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for folder in MODELS:
        for file in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
            assert (released / folder / file).read_bytes() == (smoke / folder / file).read_bytes()
    gates = "data/smoke/organisms/gates.csv"
    assert (released / gates).read_bytes() == (smoke / gates).read_bytes()


def test_released_organisms_are_taken_and_others_trained_with_a_sentence(released):
    plan = snakemake(released, "-n", *SMOKE)
    assert {job.partition(":")[0] for job in planned(plan)}.isdisjoint({"pretrain", "instruct"})
    assert "This study trains" not in plan.stderr
    more = snakemake(released, "-n", *changed(released, {"seeds": [1, 2, 7], "ladder": {"width-64": {"layers": 1}}}))
    assert {job for job in planned(more) if job.startswith("pretrain")} == {"pretrain:main:7", "pretrain:width-64:1"}
    assert "This study trains 1 main organism: of seed 7 none are released." in more.stderr
    assert "This study trains 1 width-64 organism: none of this kind are released." in more.stderr
    longer = snakemake(released, "-n", *changed(released, {"organism": {"documents": 901}}))
    assert {job for job in planned(longer) if job.startswith("pretrain")} >= {"pretrain:main:1", "pretrain:main:2"}
    assert "This study trains 2 main organisms: the released ones differ in `organism: documents`." in longer.stderr


def test_an_organism_below_the_gate_is_not_released(smoke, tmp_path):
    gate = changed(smoke, {"gate": {"earlier_code": 99}, "seeds": [1, 2]})
    shutil.rmtree(smoke / "organisms")
    refused = snakemake(smoke, "--cores", "1", "organisms", *gate)
    assert refused.returncode
    assert "does not pass the gate (earlier_code" in refused.stdout + refused.stderr
    assert not list((smoke / "organisms").rglob("recipe.json"))
