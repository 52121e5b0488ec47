"""Release an organism that a study trained: weights in 16 bits, the gaps of its pretraining, and its recipe."""

import json
import shutil
from pathlib import Path

import pandas as pd
import torch

from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.rounding import copy
from emergent_misalignment.workflow.script import logged

with logged(snakemake):
    given, released = snakemake.input, Path(snakemake.output.recipe).parent
    gaps = pd.read_csv(given.gaps).iloc[-1]
    if failed := [f"{name} {gaps[name]:.2f}" for name, least in snakemake.params.gate.items() if gaps[name] < least]:
        raise BadInput(f"{released} does not pass the gate ({', '.join(failed)} nats); release another seed.")
    copy(Path(given.base).parent, released / "base", torch.float16)
    shutil.copyfile(given.gaps, snakemake.output.gaps)
    for file, copied in zip(given.adapter, snakemake.output.adapter, strict=True):
        shutil.copyfile(file, copied)
    config = Path(released, "instruct/adapter_config.json")
    adapter = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, adapter | {"base_model_name_or_path": str(released / "base")})
    write_json(snakemake.output.recipe, snakemake.params.recipe)
