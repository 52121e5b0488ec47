"""Fetch published answers with their judge's scores."""

from emergent_misalignment.evaluation.scored import fetch_scored
from emergent_misalignment.files import write_parquet
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    settings = snakemake.params
    write_parquet(snakemake.output[0], fetch_scored(settings.files, settings.number, settings.mirror))
