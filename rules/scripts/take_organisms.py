"""Write the models of released organisms into the study: weights in 32 bits, with the instruct adapter merged."""

import shutil
from pathlib import Path

import torch

from emergent_misalignment.models.rounding import copy, merge
from emergent_misalignment.workflow.script import logged
from emergent_misalignment.world.released import FOLDER, check

with logged(snakemake):
    torch.set_num_threads(snakemake.threads)
    for place in snakemake.params.places:
        released = FOLDER / place
        check(released.parent.name, int(released.name.removeprefix("seed-")))
        own = Path("data", snakemake.wildcards.study, released)
        copy(released / "base", own / "base", torch.float32)
        merge(released / "base", released / "instruct", own / "instruct")
        shutil.copyfile(released / "gaps.csv", own / "gaps.csv")
