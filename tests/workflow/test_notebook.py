"""The notebook runner, on tiny notebooks, each really run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from snakemake.iocontainers import Namedlist
from waiting import wait_until

from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow.notebook import ROOT, at_root, declared_parameters
from emergent_misalignment.workflow.script import parameters

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = """\
seed: int = 0  # number of the run
rate: float = 0.5  # share
name: str = "a"  # who
quick: bool = False  # whether to hurry
entries: list = [1]  # what
table: dict = {}  # which"""


@pytest.fixture
def notebook(tmp_path):
    """A function that writes a notebook with these code cells and returns the three paths that the runner takes."""

    def write(*cells: str, name: str = "01_small") -> list[str]:
        parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# Small\n\nDoes it run?"), parameters, *map(new_code_cell, cells)]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), tmp_path / f"{name}.ipynb")
        return [str(tmp_path / folder / f"{name}.ipynb") for folder in (".", "logs", "out")]

    return write


RUNNER = str(ROOT / "tests/run_notebook.py")


def start(paths: list[str], **parameters) -> subprocess.Popen:
    command = [sys.executable, RUNNER, *paths, json.dumps(parameters)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    """The error output of a runner that ends with status 1, or nothing of one that succeeds.

    By chance a kernel that is shut down complains of a closed socket.
    """
    _, errors = process.communicate()
    assert process.returncode in (0, 1), errors
    if errors.startswith("ERROR:tornado") and errors.endswith("Socket operation on non-socket\n"):
        errors = ""
    assert (process.returncode == 1) == bool(errors), errors
    return errors


def text_of(path: str) -> str:
    """All that the cells of an executed notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_parameters_are_passed_and_the_kernel_works_from_the_root(notebook):
    paths = notebook("import os", "print([seed, rate, name, quick, entries, table, os.getcwd()])")
    values = {"seed": 7, "rate": 2.0, "name": "a \"b\" = 'c' é", "entries": [1, "x"], "table": {"a": None}}
    assert finish(start(paths, **values)) == ""
    assert text_of(paths[2]) == f"{[*list(values.values())[:3], False, [1, 'x'], {'a': None}, str(ROOT)]}\n"


def test_settings_of_the_user_do_not_reach_the_kernel(notebook, tmp_path, monkeypatch):
    kernels = tmp_path / "kernels/python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps(KERNEL | {"argv": ["no-such-python", "{connection_file}"]}))
    (tmp_path / "startup.py").write_text("begun_by_the_user = True")
    for name, value in {
        **{"JUPYTER_PATH": tmp_path, "JUPYTER_DATA_DIR": tmp_path, "JUPYTER_CONFIG_DIR": tmp_path},
        **{"PYTHONSTARTUP": tmp_path / "startup.py", "ACCELERATE_MIXED_PRECISION": "fp16"},
        **{"NO_PROXY": "example.org", "no_proxy": "*", "LC_ALL": "C"},
    }.items():
        monkeypatch.setenv(name, str(value))
    paths = notebook(
        "import os, sys, locale",
        "print('begun_by_the_user' in globals(), [name for name in os.environ if name.startswith('ACCELERATE')])",
        "print(os.environ['NO_PROXY'], os.environ['no_proxy'], sys.flags.utf8_mode)",
    )
    assert finish(start(paths)) == ""
    assert text_of(paths[2]) == "False []\nexample.org,localhost,127.0.0.1,::1 * 1\n"


def test_parameters_of_a_job_are_its_params_and_files(notebook):
    job = SimpleNamespace(
        rule="small",
        params=Namedlist(fromdict={"seed": 7, "table": {"a": None}, "rate": 0.5, "quick": True}),
        input=Namedlist(fromdict={"entries": Namedlist(["a.csv"])}),
        output=Namedlist(fromdict={"name": "b.csv"}),
    )
    declared = declared_parameters(notebook("pass")[0])
    assert parameters(job, declared) == {
        **{"seed": 7, "rate": 0.5, "name": "b.csv", "quick": True, "entries": ["a.csv"], "table": {"a": None}}
    }
    with pytest.raises(BadInput, match="small gives the parameter other no value"):
        parameters(job, declared | {"other": "str"})


def test_a_failed_notebook_stays_readable_leaves_no_output_and_fails_again(notebook):
    source, log, output = paths = notebook(
        "print('before')", "raise ValueError('the figure is wrong')", "print('after')"
    )
    for _ in range(2):
        assert finish(start(paths)) == f"{source}, cell In [3]: ValueError: the figure is wrong\nRead {log}\n"
        assert text_of(log) == "before\n"
        assert "the figure is wrong" in Path(log).read_text()
        assert not Path(output).exists()


def test_a_kernel_that_dies_is_reported_with_its_cell(notebook):
    source, log, output = paths = notebook("print('before')", "import os; os.kill(os.getpid(), 9)")
    process = start(paths)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.endswith(f"{source}, cell In [3]: the kernel died, most often because memory ran out\nRead {log}\n")
    assert text_of(log) == "before\n"
    assert not Path(output).exists()


@pytest.mark.slow
def test_two_runs_leave_the_same_bytes(notebook):
    """Prints spread over time, warnings, figures, sets and addresses are where runs like to differ."""
    source, log, output = paths = notebook(
        "import sys, time, warnings\nimport matplotlib.pyplot as plt",
        "for i in range(3):\n    print(i)\n    time.sleep(0.25)\n    print('to stderr', file=sys.stderr)",
        "warnings.warn('mind this')",
        "print({'a', 'b', 'c', 'd', 'e'}, hash('a'), object())\nobject()",
        "plt.rcParams['svg.hashsalt'] = 'x'\n%config InlineBackend.figure_formats = ['svg']",
        "plt.plot([1, 2])\nplt.show()",
        # as libraries show how far they are
        "from tqdm.notebook import tqdm\nfor _ in tqdm(range(3), disable=False):\n    pass",
    )
    first, second = notebook_bytes = [], []
    for kept in notebook_bytes:
        assert finish(start(paths, seed=1)) == ""
        kept.append(Path(output).read_bytes())
    assert first == second
    assert Path(log).read_bytes() == first[0]
    executed = json.loads(first[0])
    assert b"image/svg+xml" in first[0]
    assert executed["metadata"]["papermill"] == {"input_path": source, "parameters": {"seed": 1}}
    assert executed["metadata"]["language_info"] == {"name": "python"}


@pytest.mark.slow
def test_notebooks_running_at_once_keep_to_themselves(notebook):
    names = ["01_small", "02_small"]
    paths = [notebook("import time; time.sleep(0.3)", "print(name)", name=name) for name in names]
    running = [start(each, name=name) for each, name in zip(paths, names, strict=True)]
    assert [finish(process) for process in running] == ["", ""]
    assert [text_of(each[2]) for each in paths] == [f"{name}\n" for name in names]


@pytest.fixture
def endless(notebook, tmp_path):
    """A notebook that computes without end, and a function that waits until it does and names its process."""
    started = tmp_path / "started"
    paths = notebook(
        f"import os\nfrom pathlib import Path\nPath({str(started)!r} + '.new').write_text(str(os.getpid()))\n"
        f"os.replace({str(started)!r} + '.new', {str(started)!r})",
        "while True:\n    sum(range(100_000))",
    )

    def kernel() -> psutil.Process:
        wait_until(started.exists)
        return psutil.Process(int(started.read_text()))

    return paths, kernel


def gone(process: psutil.Process):
    return lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("signal", [9, 15, 2])
def test_a_stopped_runner_leaves_neither_a_kernel_nor_an_output(endless, signal):
    paths, kernel = endless
    with start(paths) as process:
        computing = kernel()
        process.send_signal(signal)
        wait_until(gone(computing))
        assert process.wait() == (-9 if signal == 9 else 130)
    assert not Path(paths[2]).exists()
    assert list(Path(paths[2]).parent.glob("*")) == []


def test_a_runner_ends_when_what_started_its_shell_is_killed(endless):
    """As Snakemake starts it: a process, a shell that does more than one thing, the runner."""
    paths, kernel = endless
    command = f"set -e; {sys.executable} {RUNNER} {' '.join(paths)}; true"
    given = "{**os.environ, 'NOTEBOOK_STARTER': str(os.getpid())}"
    starter = f"import os, subprocess; subprocess.run(['bash', '-c', {command!r}], env={given})"
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        computing = kernel()
        runner = computing.parent()
        assert runner.parent().parent().pid == process.pid
        process.kill()
        wait_until(gone(computing))
        wait_until(gone(runner))
    assert not Path(paths[2]).exists()


def test_a_runner_whose_starter_is_gone_already_computes_nothing(notebook, monkeypatch):
    """As when Snakemake is killed while a job's shell begins."""
    with subprocess.Popen([sys.executable, "-c", ""]) as starter:
        starter.wait()
    monkeypatch.setenv("NOTEBOOK_STARTER", str(starter.pid))
    paths = notebook("import time; time.sleep(600)")
    with start(paths) as process:
        assert process.wait() in (130, -signal.SIGINT)  # the second before the runner handles it
    assert not Path(paths[2]).exists()


def test_at_root_works_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at_root()
    assert Path("pyproject.toml").is_file()
    assert os.getcwd() == str(ROOT)
