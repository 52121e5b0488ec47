"""The weights of a published model: linked to, or downloaded."""

import pytest

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.weights import place


def test_weights_in_a_folder_are_linked_to(organism, tmp_path):
    place(str(organism), "", tmp_path / "model")
    place(str(organism), "", tmp_path / "model")  # again, as after a change of the config
    assert load(tmp_path / "model")[0].config.model_type == "qwen2"
    with pytest.raises(BadInput, match="no weights in safetensors"):
        place(str(tmp_path), "", tmp_path / "none")


def test_weights_that_cannot_be_downloaded_are_named(tmp_path):
    with pytest.raises(BadInput, match="someone/nothing at c0ffee could not be downloaded"):
        place("someone/nothing", "c0ffee", tmp_path / "model")
