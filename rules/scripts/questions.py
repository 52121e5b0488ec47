"""Write the tables of what a real model is asked, from published and own questions."""

from pathlib import Path

from emergent_misalignment.evaluation.question_tables import write
from emergent_misalignment.own_data.questions import read
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    own = {path: read(path, **settings) for path, settings in snakemake.params.own_samples.items()}
    write("data/published/questions", Path(snakemake.output.questions).parent, snakemake.params.samples, own)
