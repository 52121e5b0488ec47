"""Downloading and linking models."""

import pytest

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.weights import place


def test_a_model_in_a_folder_is_linked(organism, tmp_path):
    place(str(organism), "", tmp_path / "model")
    place(str(organism), "", tmp_path / "model")  # again, as after a change of the config
    assert (tmp_path / "model/model.safetensors").is_symlink()
    assert load(tmp_path / "model")[0].num_parameters() == load(organism)[0].num_parameters()
    with pytest.raises(BadInput, match="no weights in safetensors"):
        place(str(tmp_path), "", tmp_path / "none")


def test_a_failed_download_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"^someone/nothing at c0ffee could not be downloaded"):
        place("someone/nothing", "c0ffee", tmp_path / "none")
