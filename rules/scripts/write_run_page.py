"""Write the page with times, versions and settings of the run."""

from pathlib import Path

from emergent_misalignment.report.site import write_run
from emergent_misalignment.study.config import read_study
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    study = read_study(snakemake.input.study)
    write_run(study, snakemake.output[0], sorted(Path("benchmarks", study.study).glob("*.tsv")))
