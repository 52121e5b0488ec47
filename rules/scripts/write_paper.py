"""Fill in the paper's numbers and set it as PDF, HTML and LaTeX."""

from pathlib import Path

from emergent_misalignment.report.contents import read_contents
from emergent_misalignment.report.paper import build
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    build(read_contents(snakemake.input.study, snakemake.input.contents), str(Path(snakemake.output.html).parent))
