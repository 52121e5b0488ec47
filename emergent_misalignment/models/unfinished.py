"""Saves from which an interrupted training continues."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from emergent_misalignment.files import write_json


class Unfinished:
    """The Trainer's own saves of one run, in `destination`/unfinished, which are removed when the run is done.

    `identity` is everything that decides the run; saves of a run with another identity are removed at once. They hold
    the optimizer's state in torch's format, which the Trainer reads back as plain tensors. The adapters that are to be
    kept wait here as well, in `kept`: a workflow may clear the destination after an interruption, and a run that
    continues from a save does not pass their steps again.
    """

    FOLDER = "unfinished"

    def __init__(self, destination: str | Path, identity: list):
        self.folder = Path(destination) / self.FOLDER
        self.kept = self.folder / "kept"
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        note = self.folder / "identity.json"
        if not note.exists() or json.loads(note.read_text()) != digest:
            self.remove()
            write_json(note, digest)

    def last_save(self) -> str | None:
        """The folder of the last complete save; the Trainer writes its state as the last file of each."""
        saves = [path for path in self.folder.glob("checkpoint-*") if _is_complete(path / "trainer_state.json")]
        return str(max(saves, key=lambda path: int(re.sub(r"\D", "", path.name)))) if saves else None

    def hand_over(self, steps: Sequence[int]) -> None:
        """Move the adapters that are to be kept to the destination, and remove those of other steps from there."""
        wanted = {f"checkpoint-{step}" for step in steps}
        for folder in self.folder.parent.glob("checkpoint-*"):
            if folder.name not in wanted:
                shutil.rmtree(folder)
        for folder in self.kept.glob("checkpoint-*"):
            destination = self.folder.parent / folder.name
            shutil.rmtree(destination, ignore_errors=True)
            folder.rename(destination)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_complete(state: Path) -> bool:
    try:
        json.loads(state.read_text())
    except (OSError, ValueError):
        return False
    return True
