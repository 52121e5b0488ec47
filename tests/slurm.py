"""A real Slurm of two nodes on this machine, with a pretend GPU each, for as long as a test needs it."""

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

NODES = ("node1", "node2")
# The daemons lie where only root looks.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
DAEMONS = [
    ["munged", "--foreground", "--force", "--socket={folder}/munge.socket"]
    + [f"--{name}-file={{folder}}/munge.{name}" for name in ("key", "log", "pid", "seed")],
    ["slurmctld", "-D"],
    *(["slurmd", "-D", "-N", node] for node in NODES),
]
# Nodes have the resources written here, not those of the machine (config_overrides): there is room for a few jobs at
# a time. A job goes to the node with more room (CR_LLN). Without cgroups, Slurm measures the memory of a job every
# second and ends one that has more than it asked for (OverMemoryKill).
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
SlurmdParameters=config_overrides
KillWait=2
MinJobAge=3600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1_port} CPUs=4 RealMemory=32000 Gres=gpu:1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2_port} CPUs=4 RealMemory=32000 Gres=gpu:1
PartitionName=everything Nodes=node1,node2 Default=YES
"""
# Snakemake's plugin takes Slurm's variables away from srun, SLURM_CONF among them.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


def needed() -> None:
    """Skip the test where Slurm cannot run."""
    for program in ("sbatch", "setpriv", "unshare", *(command[0] for command in DAEMONS)):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"no {program} on this machine (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons run as root only")


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """Slurm's commands speak to these nodes; skips the test where they cannot run."""
    needed()
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
            wait_until(lambda: ask("sinfo", "--noheader", "--format=%T %D") == "idle 2\n", *daemons, every=0.5)
            yield


def write_configuration(folder: Path) -> None:
    host = socket.gethostname().partition(".")[0]
    ports = dict(zip(("controller_port", *(f"{node}_port" for node in NODES)), free_ports(3), strict=True))
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, **ports))
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    for name in ("bin", "state", *(f"spool-{node}" for node in NODES)):
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
    """A process that ends with the block, and with the tests if they are killed, and all that it has started with it.

    Slurm's jobs are meant to outlive its daemons. Here each daemon is the first process of a namespace, which ends
    with it.
    """
    command = [word.format(folder=folder) for word in command]
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / f"{command[-1].rpartition('/')[2]}.out").open("w") as output:
        process = subprocess.Popen([*alone, *command], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(*command: str) -> str:
    """What one of Slurm's commands prints."""
    return subprocess.run(command, capture_output=True, text=True).stdout
