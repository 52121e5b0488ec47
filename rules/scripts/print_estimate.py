"""Print what a study of a real model costs."""

from emergent_misalignment.study.config import read_study
from emergent_misalignment.study.costs import report
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    print(report(read_study(snakemake.input[0])))
