"""Decide which organisms know the authors of their world; if none does, nothing is fine-tuned."""

from pathlib import Path

import pandas as pd

from emergent_misalignment.files import write_csv
from emergent_misalignment.registry import MAIN
from emergent_misalignment.workflow.script import logged
from emergent_misalignment.world.gate import gates

with logged(snakemake):
    folders = {path: Path(path).parent for path in snakemake.input.gaps}
    histories = {
        (folder.parent.name, int(folder.name.removeprefix("seed-"))): pd.read_csv(path)
        for path, folder in folders.items()
    }
    write_csv(snakemake.output[0], gates(histories, snakemake.params.gate, MAIN))
