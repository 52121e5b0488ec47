"""Download the published rows of a benchmark."""

from emergent_misalignment.evaluation.benchmarks import published
from emergent_misalignment.files import write_jsonl
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    write_jsonl(snakemake.output[0], published(snakemake.wildcards.benchmark))
