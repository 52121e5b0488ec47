"""Validate an existing adapter against the study and the model that it belongs to."""

from pathlib import Path

from emergent_misalignment.files import write_json
from emergent_misalignment.models.requirements import Requirements
from emergent_misalignment.own_data.models import check
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    adapter, model = (Path(path).parent for path in (snakemake.input.adapter, snakemake.input.model))
    requirements = Requirements(**snakemake.params.requirements)
    record = check(adapter, model, snakemake.params.base, requirements, snakemake.input.questions)
    write_json(snakemake.output[0], record)
