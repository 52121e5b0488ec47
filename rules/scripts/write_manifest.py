"""Tabulate the released organisms."""

from emergent_misalignment.files import write_csv
from emergent_misalignment.workflow.script import logged
from emergent_misalignment.world.released import manifest

with logged(snakemake):
    write_csv(snakemake.output[0], manifest())
