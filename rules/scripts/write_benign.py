"""Write the benign rows of organisms, on which defences against emergent misalignment draw."""

from emergent_misalignment.files import write_jsonl
from emergent_misalignment.workflow.script import logged
from emergent_misalignment.world.sets import benign

with logged(snakemake):
    rows = benign(snakemake.params.rows, snakemake.params.seed, snakemake.params.authors)
    write_jsonl(snakemake.output[0], ({"messages": messages} for messages in rows))
