"""Downloading and linking models."""

import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file

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


def test_the_program_links_and_reports_a_failed_download(organism, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "emergent_misalignment.models.weights", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert run(organism, tmp_path / "model", "--revision=").returncode == 0
    assert load_file(tmp_path / "model/model.safetensors")
    ended = run("someone/nothing", tmp_path / "none", "--revision=c0ffee")
    assert ended.returncode == 1 and ended.stderr.startswith("someone/nothing at c0ffee could not be downloaded")
    assert ended.stderr.count("\n") == 1
