"""Tabulate the released organisms."""

from emergent_misalignment.files import write_csv
from emergent_misalignment.world.released import manifest

write_csv(snakemake.output[0], manifest())
