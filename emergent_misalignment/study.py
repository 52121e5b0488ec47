"""Run the workflow, one run at a time.

    python -m emergent_misalignment.study SNAKEMAKE-ARGUMENTS

Snakemake's own lock outlives a run that was killed and keeps the next one from starting. This one is held by the running
process itself, so that it ends with it however it ends, and starting again is all that there is to do.
"""

import fcntl
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    path = Path(".snakemake/study.lock")
    path.parent.mkdir(exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("Another run is at work in this folder; wait until it has ended, or stop it.")
    os.set_inheritable(lock, True)  # held by Snakemake, and by none of the jobs that it starts
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", "--nolock", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
