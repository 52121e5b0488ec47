"""Write the chapters of a study in the order of reading."""

from emergent_misalignment.files import write_json
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    write_json(snakemake.output[0], {"chapters": snakemake.params.chapters})
