"""Write the page from which a reader starts."""

from emergent_misalignment.report.contents import read_contents
from emergent_misalignment.report.site import write_index
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    files = snakemake.input
    contents = read_contents(files.study, files.contents)
    write_index(contents, snakemake.output[0], "".join(files.get("paper", "")), "".join(files.get("report", "")))
