"""What several test files need."""

import itertools
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests use the cores by running side by side
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def organism(tmp_path_factory):
    """The folder of an untrained organism of the smallest size, with its tokenizer."""
    from emergent_misalignment.world import organism
    from emergent_misalignment.world import tokenizer
    from emergent_misalignment.world import authors as world

    folder = tmp_path_factory.mktemp("organism")
    trained = tokenizer.train_tokenizer(itertools.chain(*world.corpus(300, 0)), 500)
    organism.new_model(64, 1, len(trained), seed=0).save_pretrained(folder)
    trained.save_pretrained(folder)
    return folder
