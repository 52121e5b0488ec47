"""Two runs never work in one folder, and a killed one never stands in the way."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from waiting import wait_until

from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow.lock import one_run_at_a_time

SNAKEFILE = """
from emergent_misalignment.workflow.lock import one_run_at_a_time
onstart:
    one_run_at_a_time()
rule all:
    output: "done"
    shell: "touch started; while [ ! -e go ]; do sleep 0.05; done; touch {output}"
"""


def run(folder, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_second_run_is_refused_and_one_after_a_kill_resumes(tmp_path):
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    first = run(tmp_path, start_new_session=True)
    wait_until((tmp_path / "started").exists, first)
    _, errors = run(tmp_path).communicate()
    assert "\nAnother run is at work in this folder; wait for it to end, or stop it.\n" in errors
    assert not (tmp_path / "done").exists()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    (tmp_path / "go").touch()
    third = run(tmp_path)
    _, errors = third.communicate()
    assert third.returncode == 0, errors
    assert (tmp_path / "done").exists()


def test_the_lock_is_one_process_s_and_ends_with_it(tmp_path):
    claim = f"one_run_at_a_time({str(tmp_path)!r}); input('held')"
    code = f"from emergent_misalignment.workflow.lock import one_run_at_a_time; {claim}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as other:
        assert other.stdout.read(4) == b"held"
        with pytest.raises(BadInput, match="Another run is at work"):
            one_run_at_a_time(tmp_path)
        other.kill()
    one_run_at_a_time(tmp_path)
