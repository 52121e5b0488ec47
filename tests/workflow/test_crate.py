"""The Run Crate of a finished study has what the profile of Provenance Run Crates requires, and the files it names."""

import copy
import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from conftest import ROOT
from snakemake.iocontainers import InputFiles
from workflow_helpers import SMOKE, snakemake

import snakemake_report_plugin_crate as crate


def kinds(entity: dict) -> set[str]:
    given = entity.get("@type", [])
    return {given} if isinstance(given, str) else set(given)


def references(value) -> Iterator[str]:
    """The ids that the properties of an entity refer to."""
    if isinstance(value, dict):
        if value.keys() == {"@id"}:
            yield value["@id"]
        else:
            for name, each in value.items():
                yield from references(each) if name != "@id" else ()
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def violations(graph: list[dict]) -> list[str]:
    """What the profile demands (MUST) of a graph that has steps and jobs, and is not so."""
    by_id = {entity["@id"]: entity for entity in graph}
    found = [] if len(by_id) == len(graph) else ["an id is not unique"]

    def these(entity: dict, name: str, *wanted: str) -> list[dict]:
        values = [by_id.get(each, {}) for each in references(entity.get(name, []))]
        if not values or not all(kinds(each) & set(wanted) for each in values):
            found.append(f"{entity['@id']}: {name} is no {' or '.join(wanted)}")
        return [each for each in values if each]

    for entity in graph:
        unknown = [each for each in references(entity) if each not in by_id and "://" not in each]
        found += [f"{entity['@id']} refers to {each}" for each in unknown]
    root, descriptor = by_id["./"], by_id["ro-crate-metadata.json"]
    if not {"name", "description", "datePublished", "license"} <= root.keys() or descriptor["about"] != {"@id": "./"}:
        found.append("the root lacks a property")
    if not {"https://w3id.org/ro/wfrun/provenance/0.5"} <= {
        each["@id"] for each in these(root, "conformsTo", "CreativeWork")
    }:
        found.append("the root has another profile")
    (workflow,) = these(root, "mainEntity", "ComputationalWorkflow")
    if not kinds(workflow) >= {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"}:
        found.append("the workflow has another type")
    these(workflow, "programmingLanguage", "ComputerLanguage")
    tools = these(workflow, "hasPart", "SoftwareSourceCode", "SoftwareApplication")
    for step in these(workflow, "step", "HowToStep"):
        if not all(tool in tools for tool in these(step, "workExample", "SoftwareSourceCode", "SoftwareApplication")):
            found.append(f"{step['@id']} has a tool of another workflow")
    jobs = [entity for entity in graph if kinds(entity) == {"CreateAction"}]
    used = [by_id.get(each) for job in jobs for each in references(job["instrument"])]
    found += [f"{tool['@id']} is used by no action" for tool in [workflow, *tools] if tool not in used]
    found += [f"{job['@id']} ends before it starts" for job in jobs if job["startTime"] > job["endTime"]]
    (engine,) = [entity for entity in graph if kinds(entity) == {"OrganizeAction"}]
    these(engine, "instrument", "SoftwareApplication")
    these(engine, "result", "CreateAction")
    for control in these(engine, "object", "ControlAction"):
        these(control, "instrument", "HowToStep")
        these(control, "object", "CreateAction")
    return found


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project, in which a job with a notebook and one with a script have run."""
    for name in ("pyproject.toml", "CITATION.cff", "requirements.lock", "Snakefile"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in ("rules/scripts/write.py", "notebooks/ask.ipynb", "config/x y.yaml", "data/x/answer & more.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "data/x/model.safetensors").write_bytes(b"weights")
    (tmp_path / "data/x/large.parquet").write_bytes(bytes(crate.LARGEST + 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(rule: str, inputs: dict[str, str], outputs: list[str], start: float, script: str = "scripts/run.py"):
    """A job as Snakemake's report has it."""
    return SimpleNamespace(
        rule=rule,
        job=SimpleNamespace(
            input=InputFiles(fromdict=inputs), wildcards={"seed": "1"}, rule=SimpleNamespace(script=script)
        ),
        output=outputs,
        starttime=start,
        endtime=start + 2,
    )


def made(project: Path) -> tuple[list[dict], zipfile.ZipFile]:
    study = crate.Crate("x", [str(project / "config/x y.yaml")])
    study.add_job(
        job("ask", {"notebook": "notebooks/ask.ipynb"}, ["data/x/model.safetensors", "data/x/large.parquet"], 0)
    )
    asked = {"answers": "data/x/large.parquet", "own": "/elsewhere/of the user.jsonl"}
    study.add_job(job("write", asked, ["data/x/answer & more.csv"], 5, "scripts/write.py"))
    study.write(Path("data/x/crate.zip"))
    archive = zipfile.ZipFile("data/x/crate.zip")
    return json.loads(archive.read("ro-crate-metadata.json"))["@graph"], archive


def test_small_files_are_in_it_and_others_are_described(project):
    graph, archive = made(project)
    assert violations(graph) == []
    by_id = {entity["@id"]: entity for entity in graph}
    names = set(archive.namelist())
    assert {"data/x/answer & more.csv", "config/x y.yaml", "notebooks/ask.ipynb", "Snakefile"} <= names
    assert not {"data/x/model.safetensors", "data/x/large.parquet"} & names
    files = {unquote(entity["@id"]) for entity in graph if "File" in kinds(entity)}
    assert files == names - {"ro-crate-metadata.json"}
    weights = by_id["#data/x/model.safetensors"]
    assert weights["sha256"] == hashlib.sha256(b"weights").hexdigest() and weights["contentSize"] == 7
    assert by_id["#/elsewhere/of%20the%20user.jsonl"].keys() == {"@id", "@type", "name"}
    assert by_id["#job/2"]["instrument"] == {"@id": "rules/scripts/write.py"}
    assert by_id["#run"]["startTime"] == "1970-01-01T00:00:00+00:00" < by_id["#run"]["endTime"]
    assert by_id["#run"]["object"] == [{"@id": "config/x%20y.yaml"}]


@pytest.mark.parametrize(
    "name", ["#job/1", "#step/ask", "#control/2", "notebooks/ask.ipynb", "https://snakemake.github.io"]
)
def test_a_crate_that_lacks_an_entity_would_be_noticed(project, name):
    graph, _ = made(project)
    without = [copy.deepcopy(entity) for entity in graph if entity["@id"] != name]
    assert len(without) == len(graph) - 1 and violations(without)


@pytest.mark.parametrize(
    ("fields", "text", "licence"),
    [
        ({"License-Expression": "mit or apache-2.0"}, "", "MIT OR Apache-2.0"),
        ({"License": "BSD-3-Clause"}, "", "BSD-3-Clause"),
        (
            {"License": "Apache 2.0", "Classifier": "License :: OSI Approved :: Apache Software License"},
            "",
            "Apache-2.0",
        ),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, "", "NOASSERTION"),
        ({}, "Redistributions in binary\nform must reproduce ... Neither the name", "BSD-3-Clause"),
        ({}, "Redistributions in binary\nform must reproduce", "BSD-2-Clause"),
        ({}, "Permission is hereby granted, free of charge ... Apache License\n  Version 2.0", "NOASSERTION"),
    ],
)
def test_licences_are_those_of_the_metadata_or_of_their_text(tmp_path, fields, text, licence):
    folder = tmp_path / "a-1.0.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        "Name: a",
        "Version: 1.0",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    (folder / "METADATA").write_text("\n".join(lines))
    (folder / "LICENSE.txt").write_text(text)
    (folder / "RECORD").write_text("a-1.0.dist-info/METADATA,,\na-1.0.dist-info/LICENSE.txt,,\n")
    assert crate.spdx(importlib.metadata.Distribution.at(folder)) == licence


def test_the_licences_of_direct_dependencies_are_known(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = {package["name"].lower(): package["license"] for package in crate.installed()}
    assert {"torch", "transformers", "snakemake", "papermill", "scipy", "seaborn"} <= found.keys()
    unknown = [name for name, licence in found.items() if licence == "NOASSERTION"]
    assert len(unknown) < len(found) / 20, unknown


@pytest.mark.slow
def test_a_finished_study_becomes_a_crate(smoke):
    done = snakemake(smoke, "--reporter", "crate", *SMOKE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    archive = zipfile.ZipFile(smoke / "data/smoke/crate.zip")
    graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    assert violations(graph) == []
    for entity in graph:
        if "sha256" in entity and "File" in kinds(entity):
            content = archive.read(unquote(entity["@id"]))
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (entity["sha256"], entity["contentSize"])
    names = set(archive.namelist())
    assert {"data/smoke/tables/claims.csv", "paper/smoke/paper.pdf", "data/smoke/notebooks/index.html"} <= names
    assert {"rules/world.smk", "config/smoke.yaml", "emergent_misalignment/files.py", "requirements.lock"} <= names
    assert not [name for name in names if name.endswith(".safetensors")]
    rules = {entity["name"] for entity in graph if kinds(entity) == {"HowToStep"}}
    assert {"pretrain", "finetune", "ask", "judge", "claims", "paper", "index"} <= rules
