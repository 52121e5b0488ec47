"""Fetch a file that was published with the paper."""

from emergent_misalignment.data.published import DATASETS, QUESTION_FILES, fetch
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    file = (DATASETS | QUESTION_FILES)[snakemake.wildcards.file]
    fetch(file, snakemake.params.mirror, snakemake.output[0])
