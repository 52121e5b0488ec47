"""Compare two runs of one study on different machines, table by table.

    python -m emergent_misalignment.report.machines data/organism OTHER/data/organism docs/results/other_processor

OTHER is a copy of the repository in which the same study was computed on another processor; experiments may be left out
there. The outputs are `tables.csv` and the claims of the other run, from which `make readme` marks differing verdicts.
"""

import argparse
import filecmp
import shutil
import sys
from pathlib import Path

import pandas as pd

from emergent_misalignment.files import BadInput, write_csv

CLAIMS = ("claims.csv", "claim_parts.csv")


def compared(first: str | Path, second: str | Path) -> pd.DataFrame:
    """The tables that both runs (folders data/STUDY) have: `table`, and whether they are `equal` byte for byte.

    Raises BadInput if the second run has no claims.
    """
    for name in CLAIMS:
        if not Path(second, "tables", name).exists():
            raise BadInput(f"{second} has no tables/{name}; compute the study there first.")
    names = [path.relative_to(first) for path in sorted(Path(first, "tables").rglob("*.csv"))]
    rows = [
        {"table": name.as_posix(), "equal": filecmp.cmp(Path(first, name), Path(second, name), shallow=False)}
        for name in names
        if Path(second, name).exists()
    ]
    return pd.DataFrame(rows, columns=["table", "equal"])


def keep(first: str | Path, second: str | Path, destination: str | Path) -> None:
    """Write `compared` and the claims of the second run to the folder `destination`."""
    write_csv(Path(destination) / "tables.csv", compared(first, second))
    for name in CLAIMS:
        shutil.copyfile(Path(second, "tables", name), Path(destination, name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.report.machines", description="Compare two runs of one study."
    )
    parser.add_argument("first", help="data/STUDY of one run")
    parser.add_argument("second", help="data/STUDY of the other")
    parser.add_argument("destination", help="folder for tables.csv and the other run's claims")
    given = parser.parse_args()
    try:
        keep(given.first, given.second, given.destination)
    except BadInput as error:
        sys.exit(str(error))
