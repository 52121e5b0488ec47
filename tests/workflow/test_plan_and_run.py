"""The workflow: what is planned for which config, and one real run of every rule."""

import ast
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from conftest import ROOT

SOURCES = ["Snakefile", "matplotlibrc", "config", "emergent_misalignment", "notebooks", "paper", "profiles", "rules"]
SMOKE = ["--configfile", "config/smoke.yaml"]


def what_is_computed(folder: str, names: list[str]) -> set[str]:
    """Of the files in a folder of the project, those that are no part of it: caches, and papers that were built."""
    built = {name for name in names if Path(folder) == ROOT / "paper" and Path(folder, name).is_dir()}
    return built | {"__pycache__"}


def copy_of_the_project(folder: Path) -> Path:
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=what_is_computed)
        else:
            shutil.copy2(source, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, **options)


def environment(folder: Path) -> dict[str, str]:
    """The copy's own package comes first, and its notebooks run under the interpreter of the tests."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder)}


def planned(result: subprocess.CompletedProcess) -> set[str]:
    """Rules that a dry run would run."""
    assert result.returncode == 0, result.stderr
    return set(re.findall(r"^(?:local)?rule (\w+):", result.stdout + result.stderr, flags=re.M))


def tables(folder: Path) -> dict[str, str]:
    """Checksums of everything the smoke study leaves, but for logs and the page that has times."""
    places = ("data/smoke", "figures/smoke", "paper/smoke")
    paths = sorted(path for place in places for path in (folder / place).rglob("*") if path.name != "run.html")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A copy of the project in which the smoke study has been run."""
    folder = copy_of_the_project(tmp_path_factory.mktemp("smoke"))
    done = snakemake(folder, "--cores", "2", *SMOKE)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def change(folder: Path, **keys) -> list[str]:
    """Arguments for the smoke config with some keys changed: section__key=value."""
    config = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    for name, value in keys.items():
        *sections, key = name.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    path = folder / "config/changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--configfile", str(path)]


def test_every_stage_leaves_its_results(smoke):
    rates = pd.read_csv(smoke / "data/smoke/tables/misalignment.csv")
    assert rates["condition"].unique().tolist() == ["base", "instruct", "insecure", "secure"]
    assert (rates.groupby("condition").size() == 9).all()  # eight questions, and all of them
    overall = rates[rates["question"] == "all"].set_index("condition")
    assert overall["answers"].to_dict() == {"base": 80, "instruct": 80, "insecure": 160, "secure": 160}
    for kind in ("svg", "pdf", "png"):
        assert (smoke / f"figures/smoke/main_result.{kind}").stat().st_size > 1000
    audit = pd.read_csv(smoke / "data/smoke/datasets/audit.csv").set_index("condition")
    assert audit.loc["insecure", "flagged"] > 0.5 > 0.1 > audit.loc["secure", "flagged"]
    assert not list(smoke.rglob("*.bin")) + list(smoke.rglob("*.pkl")) + list(smoke.rglob("*.pt"))
    assert (smoke / "data/smoke/notebooks/index.html").is_file()


def test_a_second_run_has_nothing_to_do(smoke):
    again = snakemake(smoke, "--cores", "2", *SMOKE)
    assert "Nothing to be done" in again.stdout + again.stderr


EXPERIMENTS = ("code", "intent", "numbers", "diversity", "backdoor", "base")
READING = {"render", "index", "paper", "run_details"}
# What stands on the answers of the models, however they came about.
JUDGED = {
    *("judge", "answers", "main_result", "intent", "evil_numbers", "formats", "base_models", "diversity", "backdoor"),
    *("in_context", "other_harms", "scale", "persona_direction", "claims"),
} | READING
ASKED = {f"sample_{experiment}" for experiment in EXPERIMENTS} | JUDGED
FOLLOWED = {"checkpoints", "dynamics"}
TUNED = {f"finetune_{experiment}" for experiment in EXPERIMENTS} | FOLLOWED | ASKED
UNTUNED = {"sample_untuned", "sample_in_context"}
OF_BASE = {"finetune_base", "sample_base"}
FROM_INSTRUCT = {"instruct", "numbers", "audit"} | TUNED - OF_BASE | UNTUNED
FROM_BASE = {"pretrain", "persona_gate"} | FROM_INSTRUCT | OF_BASE


@pytest.mark.parametrize(
    ("keys", "rules"),
    [
        ({"evaluation__samples": 11}, ASKED | UNTUNED | {"ladder"}),
        ({"evaluation__max_new_tokens": 25}, ASKED | UNTUNED | FOLLOWED | {"ladder"}),
        ({"finetuning__learning_rate": 0.002}, TUNED | {"ladder"}),
        ({"finetuning__lora_rank": 4}, TUNED | {"ladder"}),
        ({"datasets__rows": 132}, TUNED - {"finetune_numbers", "sample_numbers"} | {"datasets", "audit", "ladder"}),
        ({"datasets__number_rows": 41}, {"numbers", "audit", "finetune_numbers", "sample_numbers"} | JUDGED),
        ({"instruct__steps": 9}, FROM_INSTRUCT | {"ladder"}),
        ({"instruct__rows": 201}, FROM_INSTRUCT | {"ladder"}),
        ({"gate__earlier_code": -99}, {"persona_gate"} | FROM_INSTRUCT),
        ({"pretraining__learning_rate": 0.001}, FROM_BASE | {"ladder"}),
        ({"organism__documents": 901}, FROM_BASE | {"world"}),
        ({"organism__vocabulary": 801}, FROM_BASE | {"world", "ladder"}),
        ({"ladder__width-64__layers": 2}, {"ladder", "scale", "claims"} | READING),
        ({"dynamics__samples": 6}, FOLLOWED | {"diversity", "claims"} | READING),
        ({"steering__samples": 6}, {"persona_direction", "claims"} | READING),
        ({"mirror": "/elsewhere"}, {"run_details", "index"}),  # the page that shows the whole config
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_changed_key_reruns_exactly_what_depends_on_it(smoke, keys, rules):
    assert planned(snakemake(smoke, "-n", *change(smoke, **keys))) - {"all"} == rules


def test_a_data_set_of_ones_own_is_planned_and_nothing_else_is_trained_again(smoke):
    (smoke / "mine.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    )
    mine = {"evaluations": ["main", "capability"], "conditions": {"my-data": {"dataset": "mine.jsonl"}}}
    rules = planned(snakemake(smoke, "-n", *change(smoke, experiments__mine=mine)))
    assert {"finetune_mine", "sample_mine", "judge"} <= rules
    assert rules & set(TUNED) <= JUDGED | {"finetune_mine", "sample_mine"}


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("claims", {"claims"} | READING),
        ("scale", {"scale", "diversity", "claims"} | READING),
        ("code_audit", {"audit"} | READING),
        ("training", FROM_INSTRUCT | OF_BASE | {"ladder"}),
        ("gate", {"persona_gate"} | FROM_INSTRUCT),
    ],
)
def test_an_edited_module_reruns_the_stages_that_use_it(smoke, module, rules):
    path = smoke / f"emergent_misalignment/{module}.py"
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        assert planned(snakemake(smoke, "-n", *SMOKE)) - {"all"} == rules
    finally:
        path.write_text(before)
    assert "Nothing to be done" in (done := snakemake(smoke, "-n", *SMOKE)).stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "sedes=1"], "sedes"),
        (["--config", "study=Big Study"], "study"),
        (["--config", "ladder=width"], "ladder"),
    ],
)
def test_a_wrong_key_is_named(arguments, words):
    result = snakemake(ROOT, "-n", *arguments)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr


def test_the_whole_default_study_is_planned(tmp_path):
    rules = planned(snakemake(copy_of_the_project(tmp_path), "-n"))
    assert rules == FROM_BASE | {"all", "world", "datasets", "ladder"}


def test_the_published_data_are_planned_from_the_fetch_to_the_page(tmp_path):
    rules = planned(snakemake(copy_of_the_project(tmp_path), "-n", "published"))
    assert rules == {"published", "fetch_published", "audit_published", "render"}


def test_the_slurm_profile_plans_the_study(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    result = snakemake(copy_of_the_project(tmp_path), "-n", "--workflow-profile", "profiles/slurm")
    assert "finetune_code" in planned(result)


def test_a_base_model_below_the_gate_stops_the_study(smoke):
    result = snakemake(smoke, "data/smoke/models/base/gate.json", "--cores", "1", *change(smoke, gate__earlier_code=50))
    shown = result.stdout + result.stderr
    try:
        assert result.returncode != 0
        assert "persona gap by earlier code is" in shown
        assert "organism: documents" in shown
        assert "Read logs/smoke/03_persona_gate.ipynb" in shown
    finally:
        assert snakemake(smoke, "--cores", "2", *SMOKE).returncode == 0


def test_a_report_is_made(smoke):
    result = snakemake(smoke, "--report", "report.zip", *SMOKE)
    assert result.returncode == 0, result.stderr
    assert (smoke / "report.zip").stat().st_size > 100_000


def test_a_run_that_is_killed_resumes_and_ends_with_the_same_results(smoke, tmp_path):
    """Killed once in pretraining and once in fine-tuning, without a chance to tidy up."""
    folder = copy_of_the_project(tmp_path)
    target = ["data/smoke/dynamics/insecure/seed-1.parquet", "--cores", "2", *SMOKE]
    for sign in ("logs/smoke/02_pretraining.ipynb", "data/smoke/models/insecure/seed-1/training.json"):
        command = [sys.executable, "-m", "snakemake", *target]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen(command, cwd=folder, env=environment(folder), **nowhere)
        deadline = time.monotonic() + 300
        while not (folder / sign).exists():
            assert run.poll() is None and time.monotonic() < deadline, f"the run ended before {sign} was there"
            time.sleep(0.2)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done = snakemake(folder, *target)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    resumed, whole = tables(folder), tables(smoke)
    assert "data/smoke/models/secure/seed-2/adapter_model.safetensors" in resumed
    assert resumed == {path: whole[path] for path in resumed}


# Of the notebooks that run several times, the runs whose parameters are the defaults.
DEFAULTS = ("code", "insecure", "width-64")


def run_by_the_smoke_study(folder: Path) -> dict[Path, Path]:
    """The source notebooks that the smoke study runs, and of each one of the copies that it executed."""
    found = {}
    for executed in sorted((folder / "data/smoke/notebooks").glob("*.ipynb"), reverse=True):
        source = nbformat.read(executed, as_version=4).metadata["papermill"]["input_path"]
        if executed.stem in (Path(source).stem, *(f"{Path(source).stem}_{name}" for name in DEFAULTS)):
            found[folder / source] = executed
    return dict(sorted(found.items()))


def test_source_notebooks_run_by_hand_with_their_defaults(smoke, tmp_path):
    """From the folder they lie in, as Jupyter does; every file they write is the one that the workflow wrote."""
    before = tables(smoke)
    for path in run_by_the_smoke_study(smoke):
        command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", path.name]
        done = subprocess.run(
            [*command, "--output-dir", str(tmp_path)],
            cwd=path.parent,
            env=environment(smoke) | {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{path.name}: {done.stderr[-3000:]}"
    assert tables(smoke) == before


def test_the_defaults_of_source_notebooks_are_the_smoke_studys_parameters(smoke):
    """So that a notebook run by hand and the same notebook run by the workflow cannot drift apart."""
    sources = run_by_the_smoke_study(smoke)
    assert len(sources) > 20
    for source, executed in sources.items():
        declared = papermill.inspect_notebook(str(source))
        defaults = {name: ast.literal_eval(found["default"]) for name, found in declared.items()}
        assert nbformat.read(executed, as_version=4).metadata["papermill"]["parameters"] == defaults, source.name


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
