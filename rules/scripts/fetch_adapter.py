"""Copy or download an existing adapter into the study."""

from pathlib import Path

from emergent_misalignment.own_data.models import place
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    place(snakemake.params.name, snakemake.params.revision, Path(snakemake.output[0]).parent)
