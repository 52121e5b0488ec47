"""The optional packages of a study are found from its config, and checked before anything is computed."""

import re
import subprocess
import sys
import tomllib
from functools import partial

import pytest
from conftest import ROOT
from workflow_helpers import changed, copy_of_the_project, snakemake
from workflow_helpers import study as study_of

from emergent_misalignment.files import BadInput
from emergent_misalignment.study import extras

OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MISSING = "no_such_module"
SERVED = {"serve": "a/judge", "revision": "c" * 40}


@pytest.mark.parametrize(
    ("study", "over", "names"),
    [
        ("organism", {}, []),
        ("qwen2.5-7b-instruct", {}, ["models", "benchmarks"]),
        ("gpt-4o", {}, ["models"]),
        ("gpt-4o", {"judge": None}, ["models"]),
        ("smollm2-135m-instruct", {}, ["small"]),
    ],
)
def test_a_study_needs_the_packages_that_it_imports(study, over, names):
    assert list(extras.needed(study_of(study, over))) == names


def test_each_extra_installs_the_modules_that_are_checked():
    for extra, modules in extras.MODULES.items():
        packages = {re.split("[=<>]", each)[0].replace("-", "_") for each in OPTIONAL[extra]}
        assert set(modules) <= packages
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^EXTRAS = (.*)$", makefile, flags=re.M)[1].split() == [*extras.MODULES, "docs", "cluster"]


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(extras.MODULES, "models", [MISSING])
    study = study_of("gpt-4o")
    extras.check(study, ["paper", "claims"])  # nothing that is left to do needs it
    with pytest.raises(BadInput) as error:
        extras.check(study, ["paper", "judge"])
    sentence = str(error.value)
    assert MISSING in sentence and "-e '.[models]'`" in sentence and "make study STUDY=gpt-4o`" in sentence


@pytest.mark.parametrize(
    ("over", "rule"),
    [
        ({"evaluation": {"engine": "vllm"}}, "ask"),
        ({"evaluation": {"engine": "vllm"}}, "persona_texts"),
        ({"judge": SERVED}, "judge"),
        ({"judge": {"second": SERVED | {"answers": 5, "split_numbers": False}}}, "second_judge"),
    ],
)
def test_vllm_is_needed_where_the_config_names_it(over, rule):
    assert rule in extras.by_vllm(study_of("qwen2.5-0.5b-instruct", over))
    assert not extras.by_vllm(study_of("qwen2.5-0.5b-instruct"))


def test_the_program_prints_the_extras():
    command = [sys.executable, "-m", "emergent_misalignment.study.extras"]
    run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    assert run([*command, "config/qwen2.5-7b-instruct.yaml"]).stdout == "models benchmarks\n"
    assert run(command).stdout == "\n"  # the default study
    ended = run([*command, "config/none.yaml"])
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "config/none.yaml" in ended.stderr


@pytest.mark.slow
def test_a_run_is_refused_before_it_computes_anything(tmp_path, monkeypatch):
    """The estimate, which does not need the package, is not refused."""
    folder = copy_of_the_project(tmp_path / "project")
    module = folder / "emergent_misalignment/study/extras.py"
    module.write_text(module.read_text().replace('["openai"]', f'["{MISSING}"]'))
    study = ["--configfile", "config/gpt-4o.yaml"]
    refused = snakemake(folder, "--cores", "1", *study)
    assert refused.returncode != 0 and f"\nThis study needs the package {MISSING}," in refused.stderr
    assert "rule fetch" not in refused.stdout + refused.stderr and not (folder / "data").exists()
    assert snakemake(folder, "--cores", "1", "estimate", *study).returncode == 0

    monkeypatch.setenv("EM_VLLM", str(tmp_path))
    by_vllm = changed(folder, {"study": "x", "evaluation": {"engine": "vllm"}}, "qwen2.5-0.5b-instruct")
    refused = snakemake(folder, "--cores", "1", "data/x/answers/instruct.parquet", *by_vllm)
    assert refused.returncode != 0 and f"\nEM_VLLM is {tmp_path}, where no vLLM is" in refused.stderr
    assert not (folder / "data/x").exists()
