"""Write the page of sample answers."""

from emergent_misalignment.report.answers import read, write_page
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    write_page(snakemake.wildcards.study, snakemake.output[0], read(snakemake.input.judged))
