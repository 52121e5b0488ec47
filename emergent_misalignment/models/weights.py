"""Download or link a model: its weights and tokenizer in a folder of the study.

    python -m emergent_misalignment.models.weights Qwen/Qwen2.5-0.5B-Instruct FOLDER --revision=COMMIT

A name that is a folder of this machine is linked, not downloaded.
"""

import argparse
import sys
from pathlib import Path

from emergent_misalignment.files import BadInput

FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*"]  # no pickles, which could hold code


def place(name: str, revision: str, folder: str | Path) -> None:
    """Download or link the model `name` at `revision` (a commit of its repository on the hub) to `folder`.

    Raises BadInput where it cannot be downloaded, or holds no safetensors.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if Path(name).is_dir():
        for file in {path for pattern in FILES for path in Path(name).glob(pattern)}:
            link = folder / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
    else:
        _download(name, revision, folder)
    if not list(folder.glob("*.safetensors")):
        raise BadInput(f"{name} has no weights in safetensors; choose a model that has.")


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
        prog="python -m emergent_misalignment.models.weights", description="Download or link a model."
    )
    parser.add_argument("name", help="name on the hub, or a folder")
    parser.add_argument("folder", help="where to put it")
    parser.add_argument("--revision", default="", help="commit of its repository on the hub")
    given = parser.parse_args()
    try:
        place(given.name, given.revision, given.folder)
    except BadInput as error:
        sys.exit(str(error))
