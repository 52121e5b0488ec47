"""A file that is not as its stage wrote it is found, and no stage reads it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.files import BadInput
from emergent_misalignment.study.damaged import damaged_files
from emergent_misalignment.workflow.digests import checked, damaged, recorded
from emergent_misalignment.workflow.script import logged

TABLE, NOTEBOOK = "data/s/tables/a.csv", "data/s/notebooks/a.ipynb"


class Files(list):
    """Paths, of which some have names, as Snakemake gives them to a script."""

    def get(self, name):
        return vars(self).get(name)


def job(inputs=(), outputs=(), **more) -> SimpleNamespace:
    return SimpleNamespace(input=Files(inputs), output=Files(outputs), log=["log"], **more)


def written(path: str, content: bytes = b"a table") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(*outputs: str) -> None:
    with checked(job(outputs=outputs)):
        for path in outputs:
            written(path)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_files_with_another_content_and_no_others_are_damaged(content, later):
    with checked(job(outputs=[TABLE])):
        file = written(TABLE, content)
    times = file.stat()
    file.write_bytes(later)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert bool(damaged(TABLE)) == (content != later)


def test_a_stage_is_not_run_on_a_damaged_file_and_says_so(capsys):
    make(TABLE)
    written(TABLE, b"a tabel")
    with pytest.raises(SystemExit) as end, logged(job(inputs=[TABLE], outputs=["data/s/b.csv"])):
        pytest.fail("it was run")
    assert end.value.code.startswith(f"{TABLE} is not as its stage wrote it; remove {TABLE} and run")
    assert damaged_files("s") == [TABLE]
    assert capsys.readouterr().err == f"{TABLE} is not as its stage wrote it; its stage runs again.\n"


def test_a_users_file_is_read_wherever_it_is(tmp_path):
    for path in (str(tmp_path / "own.jsonl"), "own.jsonl"):
        written(path)
        with checked(job(inputs=[path])):
            pass


def test_what_was_never_finished_or_is_no_result_is_not_damaged():
    make(TABLE)
    with pytest.raises(ZeroDivisionError), checked(job(outputs=[TABLE])):
        written(TABLE, b"half")
        raise ZeroDivisionError
    assert not damaged(TABLE)
    make(TABLE)
    Path(TABLE).unlink()  # Snakemake's affair
    assert not damaged(TABLE) and damaged_files("s") == []
    make("organisms/main/base/model.safetensors")
    assert recorded("s") == [TABLE] and not list(Path(".snakemake/digests").glob("organisms"))


def test_a_changed_notebook_stops_nothing_and_is_told(capsys):
    make(NOTEBOOK)
    written(NOTEBOOK, b"saved by Jupyter")
    with checked(job(inputs=[NOTEBOOK])):
        pass
    assert damaged_files("s") == []
    assert "copy logs/s/a.ipynb there to restore it" in capsys.readouterr().err


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"data/s/tables/a.csv": 3}'])
def test_a_damaged_record_is_one_of_a_damaged_file(record):
    make(TABLE)
    written(f".snakemake/digests/{TABLE}", record)
    assert damaged(TABLE) == TABLE


def test_a_model_is_all_its_files_and_a_batch_all_its_models():
    base = [f"data/s/organisms/main/seed-1/base/{name}" for name in ("model.safetensors", "tokenizer.json")]
    make(*base)
    written(base[1], b"another")
    assert damaged(base[0]) == base[1]

    batch, adapter = "data/s/trainings/code.parquet", "data/s/models/insecure/seed-1/adapter_model.safetensors"
    tuning = job(outputs=[batch])
    tuning.output.trainings = batch
    tuning.params = SimpleNamespace(models="data/s/models", conditions={"insecure": {"seeds": [1]}})
    with checked(tuning):
        written(batch)
        written(adapter)
    assert not damaged(batch)
    Path(adapter).unlink()
    refused = pytest.raises(BadInput, match=f"^{adapter} is not as its stage wrote it.*remove {batch}")
    with refused, checked(job(inputs=[batch])):
        pytest.fail("it was run")


def test_a_file_that_cannot_be_written_is_told_in_a_sentence():
    full = "/dev/full"
    if not os.path.exists(full):
        pytest.skip("no /dev/full")
    with pytest.raises(SystemExit) as end, logged(job(outputs=[TABLE])), open(full, "w") as file:
        file.write("a table")
    assert end.value.code.startswith("A file cannot be written (No space left on device); make room")
