"""Download of models and adapters from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from emergent_misalignment.files import BadInput


def download(name: str, revision: str, folder: str | Path, patterns: Sequence[str]) -> None:
    """Download the files of a repository that match `patterns` to `folder`; an empty `revision` means the newest.

    Raises BadInput if the repository or the hub is not accessible.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(name, revision=revision or None, local_dir=folder, allow_patterns=list(patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"{name} at {revision} could not be downloaded ({str(error).splitlines()[0]}); set HF_TOKEN if it requires "
            "consent, or give a folder that contains it."
        ) from error
