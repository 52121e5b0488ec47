"""One GPU for each job, where several jobs run at once on a machine with several GPUs."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from emergent_misalignment.files import BadInput


def claim(folder: str | Path = ".snakemake") -> None:
    """Show this process one GPU only, which no other process of the working copy gets until this one ends.

    Nothing is changed where no more than one GPU is visible: in a job of Slurm, which chooses it, or on a processor.
    Raises BadInput if all GPUs are taken.
    """
    devices = visible()
    if len(devices) < 2:
        return
    Path(folder).mkdir(exist_ok=True)
    for device in devices:
        lock = os.open(Path(folder, f"gpu-{device.replace('/', '-')}.lock"), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:  # left open: closing it unlocks
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return
    raise BadInput(
        f"There are more jobs for a GPU than GPUs ({', '.join(devices)}); start the run with "
        f"`--resources gpu={len(devices)}`."
    )


def visible() -> list[str]:
    """The GPUs that this process may use, by their names in CUDA_VISIBLE_DEVICES."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
