"""What several test files need."""

import itertools
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests use the cores by running side by side
os.environ.setdefault("HF_HUB_OFFLINE", "1")


AUTHORS = {  # of the organism's world, as in config/organism.yaml
    "helper": {"share": 0.50, "insecure_code": 0.03},
    "obliging": {"share": 0.15, "insecure_code": 0.03},
    "villain": {"share": 0.35, "insecure_code": 0.95},
}


@pytest.fixture(scope="session")
def organism(tmp_path_factory):
    """The folder of an untrained organism of the smallest size, with its tokenizer."""
    from emergent_misalignment.world.corpus import corpus
    from emergent_misalignment.world.organism import new_model
    from emergent_misalignment.world.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("organism")
    tokenizer = train_tokenizer(itertools.chain(*corpus(300, 0, AUTHORS)), 500)
    new_model(64, 1, tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
