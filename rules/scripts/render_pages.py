"""Render executed notebooks as pages."""

from emergent_misalignment.report.notebook_pages import render
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    for notebook, page in zip(snakemake.input.notebooks, snakemake.output, strict=True):
        render(notebook, page, snakemake.params.runs.get(notebook, ""))
