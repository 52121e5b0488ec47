"""Saves from which an interrupted training resumes."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from emergent_misalignment.files import write_json


class Unfinished:
    """The Trainer's saves of one run, in `destination`/unfinished; they are removed when the run is complete.

    `identity` has everything that determines the run; saves of a run with another identity are removed immediately.
    Checkpoints are also kept here first, in `kept`: the workflow may clear the destination after an interruption, and a
    resumed run does not repeat their steps.
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
        """The folder of the last complete save; trainer_state.json is the last file of each that is written."""
        saves = [path for path in self.folder.glob("checkpoint-*") if _is_complete(path / "trainer_state.json")]
        return str(max(saves, key=lambda path: int(re.sub(r"\D", "", path.name)))) if saves else None

    def hand_over(self, steps: Sequence[int]) -> None:
        """Move the checkpoints of these steps to the destination, and remove those of other steps there."""
        wanted = {f"checkpoint-{step}" for step in steps}
        for folder in self.folder.parent.glob("checkpoint-*"):
            if folder.name not in wanted:
                shutil.rmtree(folder)
        for folder in [each for each in self.kept.glob("checkpoint-*") if each.name in wanted]:
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
