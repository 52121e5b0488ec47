"""The weights of a published model, in a folder of the study.

    python -m emergent_misalignment.models.weights Qwen/Qwen2.5-0.5B-Instruct FOLDER --revision=COMMIT

A name that is a folder of this machine is linked to instead of fetched.
"""

import argparse
import sys
from pathlib import Path

from emergent_misalignment.files import BadInput

FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer*"]  # no pickles, which could hold code


def place(name: str, revision: str, folder: str | Path) -> None:
    """Have the model `name` at `revision` (a commit of its repository on the hub) in `folder`.

    Raises BadInput where it cannot be fetched, or is no model in safetensors.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if Path(name).is_dir():
        for file in {path for pattern in FILES for path in Path(name).glob(pattern)}:
            link = folder / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
    else:
        _fetch(name, revision, folder)
    if not list(folder.glob("*.safetensors")):
        raise BadInput(f"{name} has no weights in safetensors; choose a model that has.")


def _fetch(name: str, revision: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(name, revision=revision or None, local_dir=folder, allow_patterns=FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"{name} at {revision} could not be fetched ({str(error).splitlines()[0]}); a model that asks for consent "
            "needs HF_TOKEN in the environment, and model: name may be a folder that holds it already."
        ) from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.models.weights", description="Have a published model in a folder."
    )
    parser.add_argument("name", help="name on the hub, or a folder")
    parser.add_argument("folder", help="where to have it")
    parser.add_argument("--revision", default="", help="commit of its repository on the hub")
    given = parser.parse_args()
    try:
        place(given.name, given.revision, given.folder)
    except BadInput as error:
        sys.exit(str(error))
