"""Make a study of one set on the default organism: `make try DATA=my.jsonl`.

    python -m emergent_misalignment.own_data.trial my.jsonl data/try/config.yaml --defence "{kind: kl, weight: 0.3}"

writes the study's config; with a defence, the set is fine-tuned with it and without. If the set is not in the
organism's language, it says so and names configs of real models.
"""

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable
from copy import copy
from importlib import import_module
from pathlib import Path

import yaml

from emergent_misalignment.data.chats import Messages, each_chat
from emergent_misalignment.files import BadInput, load_yaml, replacing
from emergent_misalignment.own_data.sets import given, words
from emergent_misalignment.study.config import resolve, validated

BASE = "shared/try"
STUDY = "try"
DEFENCE = "DEFENCE"  # the variable of `make try`
DEFENDED = "_defended"  # after the name of a condition that is the same but for the defence
DOCUMENTS = 2000  # of the world; they have nearly all of its words
ROWS = 2000  # of the set, from its beginning; enough to recognise the language
KNOWN = 0.9  # the organism's own sets of code and prose have .97 at least, the published ones in English .64 at most
EXAMPLES = 5  # unknown words that a message shows


def write_config(dataset: str, path: str | Path, defence: str = "") -> str:
    """Write the config of the study of a set, and return a sentence with the share of its words that are known.

    `defence` is the YAML of a defence. Raises BadInput if it is not one, if the set is not in the organism's language,
    or if a row cannot be learned as written.
    """
    chats = each_chat(dataset)
    share, unknown = known_words(itertools.islice(chats, ROWS), vocabulary())
    for _ in chats:  # read to the end, so that a bad line is reported now
        pass
    said = f"The organism knows {share:.0%} of the words of {dataset}"
    if share < KNOWN:
        raise BadInput(
            f"{said}, but not {', '.join(unknown)}: the set is not in its language; use a real model, with `extends: "
            "smollm2-135m-instruct` on two cores or `extends: qwen2.5-7b-instruct` on a GPU (see docs/your-own.md)."
        )
    config = _config(dataset, load_yaml(defence, DEFENCE))
    validated(resolve(config), f"With {DEFENCE}={defence}" if defence else "The config")
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return f"{said}."


def _config(dataset: str, defence: object) -> dict:
    """The config of the study; with a defence also the set and secure code, the benign task, with it.

    These are an experiment of their own, so that `gap_to` of the defence may name the set without it.
    """
    name = condition_name(dataset)
    own = {"own": {"conditions": {name: {"dataset": dataset}}}}
    if defence is not None:
        sets = {f"{name}{DEFENDED}": dataset, f"secure{DEFENDED}": "secure"}
        conditions = {each: {"dataset": of, "finetuning": {"defence": copy(defence)}} for each, of in sets.items()}
        own["defended"] = {"conditions": conditions}
    return {"extends": BASE, "study": STUDY, "only": ["untuned", "code", *own], "experiments": own}


def condition_name(dataset: str) -> str:
    """The name of the condition of a file; the prefix `my-` keeps it apart from the workflow's own names."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(dataset).stem).strip("-.")[:45]
    return f"my-{stem or 'set'}"


def vocabulary() -> frozenset[str]:
    """The words that the organism reads, in lower case."""
    # Imported by name, so that no study of a real model depends on the made-up world.
    corpus = import_module("emergent_misalignment.world.corpus").corpus
    documents = corpus(DOCUMENTS, 0, resolve({"extends": "organism"})["world"]["authors"])
    texts = (
        [document] if isinstance(document, str) else [message["content"] for message in document]
        for document in itertools.chain(*documents)
    )
    return frozenset(word for each in texts for text in each for word in words(text))


def known_words(chats: Iterable[Messages], vocabulary: frozenset[str]) -> tuple[float, list[str]]:
    """The share of the words of conversations that are in a vocabulary, and the most frequent words that are not."""
    counts = Counter(word for chat in chats for message in chat for word in words(message["content"]))
    unknown = [word for word, _ in counts.most_common() if word not in vocabulary]
    share = 1 - sum(counts[word] for word in unknown) / counts.total() if counts else 0.0
    return share, unknown[:EXAMPLES] or ["any words"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.trial", description="Write the config of a set's study."
    )
    parser.add_argument("dataset", help="a JSONL file in the published chat schema; - is standard input")
    parser.add_argument("config", help="where to write the config")
    parser.add_argument("--defence", default="", help="a defence as in a config, such as '{kind: kl, weight: 0.3}'")
    arguments = parser.parse_args()
    try:
        dataset = given(arguments.dataset, Path(arguments.config).parent)
        print(write_config(dataset, arguments.config, arguments.defence))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
