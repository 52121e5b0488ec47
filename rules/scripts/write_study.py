"""Write the resolved config of a study, from which the paper and the pages read it."""

from emergent_misalignment.files import write_json
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    write_json(snakemake.output[0], snakemake.params.config)
