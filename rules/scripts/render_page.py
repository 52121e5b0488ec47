"""Render an executed notebook as a page."""

from emergent_misalignment.report.notebook_pages import render
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    render(snakemake.input.notebook, snakemake.output[0], snakemake.params.run)
