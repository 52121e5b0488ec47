"""Write the report on sets and models of the user's own."""

from emergent_misalignment.own_data.report import write
from emergent_misalignment.study.config import read_study
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    files = snakemake.input
    write(
        read_study(files.study),
        snakemake.output.page,
        snakemake.output.json,
        measures=list(files.measures),
        judged=list(files.judged),
        trainings=list(files.trainings),
        audit=list(files.audit),
    )
