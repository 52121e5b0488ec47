"""A real Slurm of one node, with a pretend GPU, for as long as a test needs it."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

# The daemons lie where only root looks.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
DAEMONS = [
    ["munged", "--foreground", "--force", "--socket={folder}/munge.socket"]
    + [f"--{name}-file={{folder}}/munge.{name}" for name in ("key", "log", "pid", "seed")],
    ["slurmctld", "-D"],
    ["slurmd", "-D"],
]
# The node has the resources written here, not those of the machine (config_overrides), and they are not enforced:
# there is room for a few jobs at a time, and no need of cgroups.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
KillWait=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=32000 Gres=gpu:1
PartitionName=everything Nodes={host} Default=YES
"""
# Snakemake's plugin takes Slurm's variables away from srun, SLURM_CONF among them.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


@contextlib.contextmanager
def one_node() -> Iterator[None]:
    """Slurm's commands speak to this node; skips the test where it cannot run."""
    for program in ("sbatch", "setpriv", *(command[0] for command in DAEMONS)):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"no {program} on this machine (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons run as root only")
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as name:  # sockets: short
        folder = Path(name)
        write_configuration(folder)
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as running:
            patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
            patch.setenv("PATH", f"{folder}/bin{os.pathsep}{PATH}")
            daemons = []
            for command in DAEMONS:
                daemons.append(running.enter_context(daemon(command, folder)))
                wait_until((folder / "munge.socket").exists, *daemons)
            wait_until(lambda: ask("sinfo", "--noheader", "--format=%T") == "idle\n", *daemons, every=0.5)
            try:
                yield
            finally:
                ask("scancel", "--user=root")
                wait_until(lambda: not ask("squeue", "--noheader"), *daemons, every=0.5)


def write_configuration(folder: Path) -> None:
    host = socket.gethostname().partition(".")[0]
    ports = dict(zip(("controller_port", "node_port"), free_ports(2), strict=True))
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, **ports))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    for name in ("bin", "spool", "state"):
        (folder / name).mkdir()
    (folder / "bin/srun").write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
    (folder / "bin/srun").chmod(0o755)
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def daemon(command: list[str], folder: Path) -> Iterator[subprocess.Popen]:
    """A process that ends with the block, and with the tests if they are killed."""
    command = ["setpriv", "--pdeathsig", "TERM", *(word.format(folder=folder) for word in command)]
    with (folder / f"{command[3]}.out").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(*command: str) -> str:
    """What one of Slurm's commands prints."""
    return subprocess.run(command, capture_output=True, text=True).stdout
