"""One run at a time in a working copy, and none that was killed stands in the way of the next."""

import fcntl
import os
from pathlib import Path

from emergent_misalignment.files import BadInput


def one_run_at_a_time(folder: str | Path = ".snakemake") -> None:
    """Claim the working copy until this process ends, however it ends. Raises BadInput if another process has it.

    Snakemake's own lock is a file, which remains when Snakemake is killed, and then every run is refused until a
    person removes it. The operating system lets go of this lock by itself.
    """
    Path(folder).mkdir(exist_ok=True)
    descriptor = os.open(Path(folder, "run.lock"), os.O_WRONLY | os.O_CREAT, 0o644)  # left open: closing it unlocks
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BadInput("Another run is at work in this folder; wait for it to end, or stop it.") from error
    except OSError:
        pass  # a file system that keeps no locks, as on some clusters, is no reason not to run
