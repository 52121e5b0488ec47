"""Run a rule's notebook. Its parameters are the rule's `params`, and the paths of its outputs and inputs by name."""

import os
import sys

from emergent_misalignment.files import BadInput
from emergent_misalignment.workflow import gpus
from emergent_misalignment.workflow.digests import checked
from emergent_misalignment.workflow.notebook import declared_parameters, ended_with, run
from emergent_misalignment.workflow.script import not_written, parameters

with ended_with(int(os.environ.get("NOTEBOOK_STARTER", 0))):
    try:
        with not_written(), checked(snakemake):
            if snakemake.resources.get("gpu"):
                gpus.claim()
            source = snakemake.input.notebook
            values = parameters(snakemake, declared_parameters(source))
            run(source, snakemake.log.notebook, snakemake.output.notebook, values)
    except (BadInput, RuntimeError) as error:
        sys.exit(str(error))
