"""Download a model, link its folder, or make it from a GGUF file."""

from pathlib import Path

from emergent_misalignment.models.weights import place
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    place(snakemake.params.name, snakemake.params.revision, Path(snakemake.output[0]).parent)
