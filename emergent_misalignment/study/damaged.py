"""The files of a study that are not as its stages wrote them.

    python -m emergent_misalignment.study.damaged config/smoke.yaml

prints the files that have to be made again, and a sentence about each to standard error. `make study` makes them again
before it continues.
"""

import sys
from pathlib import Path

from emergent_misalignment.files import BadInput
from emergent_misalignment.study.config import load
from emergent_misalignment.workflow.digests import NOTEBOOK, damaged, recorded


def damaged_files(study: str) -> list[str]:
    """The outputs of a study to make again; a sentence about each, and about each changed notebook, is printed."""
    found = []
    for path in recorded(study):
        file = damaged(path)
        if file and path.endswith(NOTEBOOK):
            original = f"logs/{study}/{Path(path).name}"
            print(f"{path} is not as its stage wrote it; copy {original} there to restore it.", file=sys.stderr)
        elif file:
            found.append(path)
            print(f"{file} is not as its stage wrote it; its stage runs again.", file=sys.stderr)
    return found


if __name__ == "__main__":
    try:
        print(*damaged_files(load(sys.argv[1:]).study))
    except BadInput as error:
        sys.exit(str(error))
