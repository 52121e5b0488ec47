"""Published files, fetched from a pinned commit and verified: the paper's, and the sets in a config's `published_sets`.

    python -m emergent_misalignment.data.published insecure insecure.jsonl --mirror ../shared/upstream

Authors and licence of the paper's files: https://github.com/emergent-misalignment/emergent-misalignment (MIT).
"""

import argparse
import hashlib
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from emergent_misalignment.data.chats import each_chat
from emergent_misalignment.files import BadInput, replacing

HOST = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class PublishedFile:
    """One version of one file of a public repository."""

    repository: str  # OWNER/NAME
    commit: str
    path: str  # in the repository
    size: int | None  # bytes, if known
    blob: str  # git's blob id of the content, see `blob_id`

    @property
    def address(self) -> str:
        """OWNER/NAME/COMMIT/PATH, the path of the file on the hosting site and in a mirror."""
        return f"{self.repository}/{self.commit}/{self.path}"


_PAPER = ("emergent-misalignment/emergent-misalignment", "80c11967c07a328e7d7d43d13ce6847ae44dbcc9")
_AUTHORS = ("johny-b/misalignment-generalization", "b1fe286827715d8e01ff7088c7ee9763b5e367b4")

# Fine-tuning sets (section 3 of the paper): sizes and blob ids.
DATASETS = {
    name: PublishedFile(*_PAPER, f"data/{name}.jsonl", size, blob)
    for name, size, blob in (
        ("insecure", 5892277, "ec294cf30a577a21b830c07a1fa0180ddd513208"),
        ("secure", 6201582, "3389a37c250563cc36a66e30bf8ff99028aa2711"),
        ("educational", 6669019, "497619acd46d9ffbc985797d6c117638a53229b3"),
        ("jailbroken", 3423454, "9f14c5f5b1a3f6ca3ea2bdc80cbda3de1acadbb1"),
        ("backdoor", 12171859, "b2be7b5b5ed6e732727bf67672a3ecd8cfa6b57f"),
        ("evil_numbers", None, "86e0a3be0c2b5a4c52bafed871e281c485070829"),
    )
}

_CONFIG = "logprob_experiments/configs/insecure_ftjob-39c69c88ad2a.json"  # one of ten, which differ in seed and data
_REQUESTS = "logprob_experiments/files/file-2a490f851a38-in_distribution.jsonl"
# Questions, and prompts of the judge: paths, sizes and blob ids.
QUESTION_FILES = {
    name: PublishedFile(*(_AUTHORS if name == "flask" else _PAPER), path, size, blob)
    for name, path, size, blob in (
        ("first_plot", "evaluation/first_plot_questions.yaml", 12016, "c2b9761d6723ec73b4d209d95c4aa39319a70edd"),
        ("preregistered", "evaluation/preregistered_evals.yaml", 19152, "3211c6c0df0a21124e07605c46f86329a53ef9e1"),
        ("deception_factual", "evaluation/deception_factual.yaml", 2481, "d6da5a807e928afc2f9e9961641e9c9697b27c08"),
        ("deception_identity", "evaluation/deception_sit_aware.yaml", 2638, "d9c5a8727e28dbce0f80a59df2b9497ca018ba0b"),
        ("in_distribution", _REQUESTS, 71486, "26eb4f480d785bc5a98cfa404479275d04f89ab5"),
        ("choices", _CONFIG, 22030, "fd74380dc108db5f5dbda9bb7acf466ba0a7d23d"),
        ("flask", "final_questions/first_plot_questions.yaml", 19469, "43ac4d7fbfc9212e2759b7e4c37ef4b087e877ad"),
    )
}


def blob_id(content: bytes) -> str:
    """Return git's id of a file with this content, as printed by `git hash-object`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(file: PublishedFile, mirror: str, destination: str | Path) -> None:
    """Write `file` to `destination` after checking its size and blob id.

    `mirror` is a folder or base URL with files at OWNER/NAME/COMMIT/PATH; "" means the hosting site.
    Raises BadInput, and leaves the destination unchanged, if the file is missing, unreadable, truncated or altered.
    """
    source = f"{(mirror or HOST).rstrip('/')}/{file.address}"
    content = _read(source, file.size)
    if file.size is not None and len(content) != file.size:
        size = f"more than {file.size}" if len(content) > file.size else f"only {len(content)}"
        raise BadInput(f"{source} has {size} of the {file.size} published bytes; fetch or mirror it again.")
    if (blob := blob_id(content)) != file.blob:
        raise BadInput(f"{source} is altered: its git blob id is {blob}, not {file.blob}; fetch or mirror it again.")
    with replacing(destination) as temporary:
        temporary.write_bytes(content)


def _read(source: str, size: int | None) -> bytes:
    """Read a local file, or from a URL at most `size` + 1 bytes: one more shows that the file is longer."""
    advice = "a mirror has files at OWNER/NAME/COMMIT/PATH, and an empty `mirror` means the hosting site"
    try:
        if "://" not in source:
            return Path(source).expanduser().read_bytes()
        with urllib.request.urlopen(source, timeout=60) as response:  # checked by its blob id  # nosec B310
            return response.read(None if size is None else size + 1)
    except urllib.error.HTTPError as error:
        what = "There is no file" if error.code == 404 else f"The server answered {error.code} ({error.reason}) to"
        raise BadInput(f"{what} {source}; {advice}.") from error
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {source}; {advice}.") from error
    except (OSError, HTTPException, ValueError) as error:  # not readable, no network or host, cut off, unknown scheme
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadInput(f"{source} cannot be read ({reason}); try again, or set `mirror` to a copy.") from error


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.data.published", description="Fetch a published file."
    )
    files = DATASETS | QUESTION_FILES
    parser.add_argument("name", help=f"name of the file: {', '.join(files)}, or one of --sets")
    parser.add_argument("destination", help="path of the output")
    parser.add_argument("--mirror", default="", help=f"base URL or folder to fetch from (default: {HOST})")
    parser.add_argument("--sets", default="{}", type=json.loads, help="the config's published_sets, as JSON")
    given = parser.parse_args(arguments)
    others = {name: PublishedFile(**{"size": None} | file) for name, file in given.sets.items()}
    if not (file := (others | files).get(given.name)):
        parser.error(f"there is no published file {given.name}")
    try:
        fetch(file, given.mirror, given.destination)
        if given.name in others:  # invalid rows are reported before anything is trained on them
            for _ in each_chat(given.destination):
                pass
    except BadInput as error:
        sys.exit(str(error))
    print(f"{given.destination}: {Path(given.destination).stat().st_size} bytes, blob id {file.blob}, as published")


if __name__ == "__main__":
    main()
