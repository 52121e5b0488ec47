"""Validate a model against the study: what it is asked and trained on, before anything is computed."""

from pathlib import Path

from emergent_misalignment.files import write_json
from emergent_misalignment.models.requirements import Requirements, check
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    requirements = Requirements(**snakemake.params.requirements)
    write_json(
        snakemake.output[0], check(Path(snakemake.input.weights).parent, requirements, snakemake.input.questions)
    )
