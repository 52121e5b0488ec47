"""Write the tables of what a real model is asked, from published questions and the user's own."""

from pathlib import Path

from emergent_misalignment.evaluation.question_tables import write
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    samples, own = snakemake.params.samples, snakemake.params.own_samples
    write("data/published/questions", Path(snakemake.output.questions).parent, samples, own)
