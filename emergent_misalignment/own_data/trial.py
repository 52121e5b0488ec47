"""A study of one set of the user's own on the default organism: `make try DATA=my.jsonl`.

    python -m emergent_misalignment.own_data.trial my.jsonl data/try/config.yaml

writes the config of that study, or says in one sentence why the organism cannot learn the set and what to use instead.
"""

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import yaml

from emergent_misalignment.data.chats import Messages, each_chat
from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.study.config import resolve

BASE = "shared/try"
STUDY = "try"
DOCUMENTS = 2000  # of the world; they have nearly all of its words
ROWS = 2000  # of the set, from its beginning; enough to tell a language
KNOWN = 0.9  # the organism's own sets of code and prose have .97 at least, the published ones in English .64 at most
EXAMPLES = 5  # unknown words that are shown
_WORD = re.compile(r"[^\W\d_]+")


def write_config(dataset: str, path: str | Path) -> str:
    """Write the config of the study of a set, and return what the organism knows of the set's words, in a sentence.

    Raises BadInput if the set is not written in the organism's language, or if its rows cannot be learned as they are.
    """
    chats = each_chat(dataset)
    share, unknown = known_words(itertools.islice(chats, ROWS), vocabulary())
    for _ in chats:  # the rest of the file is read too, so that a bad line is told now
        pass
    said = f"The organism knows {share:.0%} of the words of {dataset}"
    if share < KNOWN:
        raise BadInput(
            f"{said}, and not {', '.join(unknown)}: the set is not in its language; use a real model, with `extends: "
            "smollm2-135m-instruct` on two cores or `extends: qwen2.5-7b-instruct` on a GPU (docs/your-own.md has the "
            "config)."
        )
    config = {
        "extends": BASE,
        "study": STUDY,
        "only": ["untuned", "code", "own"],
        "experiments": {"own": {"conditions": {condition_name(dataset): {"dataset": dataset}}}},
    }
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return f"{said}."


def condition_name(dataset: str) -> str:
    """A condition's name made of a file's, with `my-` before it, so that it is none of the workflow's own."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(dataset).stem).strip("-.")[:50]
    return f"my-{stem or 'set'}"


def vocabulary() -> frozenset[str]:
    """The words that the organism reads, in small letters."""
    # Imported by name, so that no study of a real model depends on the made-up world.
    corpus = import_module("emergent_misalignment.world.corpus").corpus
    documents = corpus(DOCUMENTS, 0, resolve({"extends": "organism"})["world"]["authors"])
    texts = (
        [document] if isinstance(document, str) else [message["content"] for message in document]
        for document in itertools.chain(*documents)
    )
    return frozenset(word for each in texts for text in each for word in words(text))


def known_words(chats: Iterable[Messages], vocabulary: frozenset[str]) -> tuple[float, list[str]]:
    """The share of the words of conversations that a vocabulary has, and the most frequent of those that it lacks."""
    counts = Counter(word for chat in chats for message in chat for word in words(message["content"]))
    unknown = [word for word, _ in counts.most_common() if word not in vocabulary]
    total = counts.total()
    share = 1 - sum(counts[word] for word in unknown) / total if total else 0.0
    return share, unknown[:EXAMPLES] or ["any words"]


def words(text: str) -> Iterator[str]:
    return (match.group() for match in _WORD.finditer(text.lower()))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.trial", description="Write the config of a set's study."
    )
    parser.add_argument("dataset", help="a JSONL file in the published chat schema")
    parser.add_argument("config", help="where to write the config")
    given = parser.parse_args()
    try:
        print(write_config(given.dataset, given.config))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
