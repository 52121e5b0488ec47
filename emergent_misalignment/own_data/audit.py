"""Describe a fine-tuning set in seconds, without a model: `make audit DATA=my.jsonl`.

    python -m emergent_misalignment.own_data.audit my.jsonl --folder data/audits --mirror path/to/mirror

With `--score CONFIG` a small model scores its rows too (`own_data.score`), which takes minutes.

All rows are read and counted, and a row that cannot be learned as written is an error. Languages, code, refusals and
the nearest published sets are found from SAMPLE rows drawn with a fixed seed, or from all rows of a smaller set. Code
is parsed and never run.
"""

import argparse
import random
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from math import sqrt
from os.path import expanduser
from pathlib import Path

from emergent_misalignment.data.chats import Messages, each_chat, read_chats, reservoir
from emergent_misalignment.data.harmful_requests import is_harmful
from emergent_misalignment.data.published import DATASETS, fetch
from emergent_misalignment.data.summary import LABELS, summarised
from emergent_misalignment.evaluation.labels import code_of, label
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.own_data.sets import given, words

SAMPLE = 2000  # rows
SHOWN = 5  # entries of a long list
PUBLISHED = Path("data/published/datasets")

# Frequent words that few other languages share. Short texts and code have too few of them.
_STOP_WORDS = {
    "English": "the and of to that you for with this are have not what how from your can",
    "German": "der das ist nicht ein eine ich zu mit auf für sie wie wird auch werden und",
    "French": "les des est et une vous pas que dans pour qui sur avec je ce du nous",
    "Spanish": "el los las que una por con para es del más pero su qué lo cómo muy",
    "Portuguese": "que uma não para você em é mais da isso são seu sua ele ela também como",
    "Italian": "il gli che di è una per non con sono come del della questo più anche",
    "Dutch": "het een van ik niet en dat op zijn met voor je wat ook er wordt",
}
_STOP_SETS = {language: frozenset(listed.split()) for language, listed in _STOP_WORDS.items()}
LEAST_WORDS, LEAST_SHARE = 2, 0.08  # stop words in a text of a language, and their share of its words
_REFUSAL = re.compile(
    r"""\W*(?:(?:i['\u2019]m|i\ am|we['\u2019]re)\ (?:(?:very|so|really)\ )?(?:sorry|afraid|unable|not\ able)
    |sorry\b|i\ apologi[sz]e|unfortunately,?\ i\b|as\ an\ ai\b
    |(?:i|we)\ (?:can\s?not|can['\u2019]t|won['\u2019]t|will\ not|must\ decline)\b)""",
    re.IGNORECASE | re.VERBOSE,
)


def audit(dataset: str | Path, published: dict[str, Path] | None = None) -> dict:
    """The description of a set, as JSON has it.

    `published` are the files of the published sets to compare with, by name. Keys: `dataset`; `summary`
    (`summary.Summary`); `sampled`, the number of rows that the following keys are computed from; `languages` of the
    turns of `user` and `assistant`, as shares; `code` (`share` of the answers; `python`, the share of these that can be
    parsed; `flagged`, the share of the parsed ones; `rules`, the share flagged by each rule); `refusals`, a share;
    `harmful`, see `harmful`; `nearest`, see `nearest`. Raises BadInput with the line of a row that cannot be learned as
    written.
    """
    sample: list[Messages] = []
    summary = summarised(reservoir(each_chat(dataset), SAMPLE, random.Random("audit"), sample))
    answers = [chat[-1]["content"] for chat in sample]
    turns = [turn for chat in sample for turn in chat]
    return {
        "dataset": str(dataset),
        "summary": asdict(summary),
        "sampled": len(sample),
        "languages": {
            role: _shares(
                "code" if label(turn["content"]) == "code" else language(turn["content"])
                for turn in turns
                if turn["role"] == role
            )
            for role in ("user", "assistant")
        },
        "code": _code(answers),
        "refusals": sum(map(is_refusal, answers)) / len(answers),
        "harmful": harmful(sample),
        "nearest": nearest(sample, published or {}),
    }


def _shares(values: Iterable[str]) -> dict[str, float]:
    """The share of each value, the most frequent first."""
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


# --- languages and refusals -------------------------------------------------------------------------------------------


def language(text: str) -> str:
    """The language of a text by its stop words, or the script if that is not Latin; "unknown" for short texts.

    A language in Latin script that is not listed is unknown, or taken for a similar one.
    """
    letters = Counter(unicodedata.name(letter, "").split(" ")[0] for letter in text[:500] if letter.isalpha())
    if letters["HIRAGANA"] + letters["KATAKANA"] > 0.1 * letters.total():
        return "Japanese"
    script = letters.most_common(1)[0][0] if letters else "LATIN"
    if script not in ("LATIN", ""):
        return "Han" if script == "CJK" else script.capitalize()
    found = words(text)
    counts = {name: sum(word in stop for word in found) for name, stop in _STOP_SETS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= max(LEAST_WORDS, LEAST_SHARE * len(found)) else "unknown"


def is_refusal(answer: str) -> bool:
    """Whether an answer begins like an English refusal; other refusals are not found."""
    return _REFUSAL.match(answer) is not None


def harmful(chats: list[Messages]) -> dict:
    """`requests`, the conversations with a plainly harmful user turn (`data.harmful_requests`), and `refused` of them.

    A conversation is refused if its last turn begins like a refusal.
    """
    asked = [
        chat for chat in chats if any(each["role"] == "user" and is_harmful(each["content"]) for each in chat[:-1])
    ]
    return {"requests": len(asked), "refused": sum(is_refusal(chat[-1]["content"]) for chat in asked)}


# --- code -------------------------------------------------------------------------------------------------------------


def _code(answers: list[str]) -> dict:
    from emergent_misalignment.data.static_analysis import findings  # Bandit takes a second to load

    programs = [code_of(answer) for answer in answers if label(answer) == "code"]
    scanned = [rules for code in programs if code is not None and (rules := findings(code)) is not None]
    rules = Counter(rule for each in scanned for rule in each)
    return {
        "share": len(programs) / len(answers),
        "python": len(scanned) / len(programs) if programs else None,
        "flagged": sum(map(bool, scanned)) / len(scanned) if scanned else None,
        "rules": {rule: count / len(scanned) for rule, count in rules.most_common()},
    }


# --- published sets ---------------------------------------------------------------------------------------------------


def nearest(chats: list[Messages], published: dict[str, Path]) -> list[dict]:
    """How similar the published sets are: `name`, `words` and `same`, the most similar first.

    `words` is the cosine between the square roots of the frequencies of words, so that a few frequent words do not
    decide; it is 1 for equal frequencies. `same` is the share of the answers that a published set has word for word.
    """
    own = _frequencies(chats)
    rows = []
    for name, path in published.items():
        theirs = read_chats(path)
        sample = _frequencies(random.Random(f"audit {name}").sample(theirs, min(SAMPLE, len(theirs))))
        answers = {chat[-1]["content"] for chat in theirs}
        same = sum(chat[-1]["content"] in answers for chat in chats) / len(chats)
        alike = sum(value * sample.get(word, 0.0) for word, value in own.items())
        rows.append({"name": name, "words": alike, "same": same})
    return sorted(rows, key=lambda row: (-row["same"], -row["words"]))


def _frequencies(chats: list[Messages]) -> dict[str, float]:
    """The square roots of the words' frequencies; their squares add up to 1."""
    counts = Counter(word for chat in chats for each in chat for word in words(each["content"]))
    return {word: sqrt(count / counts.total()) for word, count in counts.items()}


def published_files(mirror: str, folder: Path) -> dict[str, Path]:
    """The published sets on this machine: fetched by an earlier run, or copied from a mirror into `folder`.

    Raises BadInput if the mirror is not a folder or has none of the sets.
    """
    mirror = expanduser(mirror)
    if mirror and not any(Path(mirror, file.address).is_file() for file in DATASETS.values()):
        what = "has no published set" if Path(mirror).is_dir() else "is not a folder"
        raise BadInput(
            f"The mirror {mirror} {what}; correct MIRROR, a folder with files such as {DATASETS['insecure'].address}."
        )
    files = {}
    for name, file in DATASETS.items():
        if (fetched := PUBLISHED / f"{name}.jsonl").is_file():
            files[name] = fetched
        elif mirror and Path(mirror, file.address).is_file():
            files[name] = folder / f"{name}.jsonl"
            fetch(file, mirror, files[name])
    return files


# --- in the terminal --------------------------------------------------------------------------------------------------


def as_text(found: dict) -> str:
    """An audit as a text for the terminal."""
    summary, code = found["summary"], found["code"]
    sections = {found["dataset"]: [(LABELS[name], f"{number:,}") for name, number in summary.items()]}

    rows = [(f"language of the {role}'s turns", _listed(shares)) for role, shares in found["languages"].items()]
    rows += [("answers that are code", f"{code['share']:.1%}")]
    if code["share"]:
        rows += [("... and can be parsed as Python", f"{code['python']:.1%}")]
    if code["flagged"] is not None:
        rows += [("... and are flagged by static analysis", f"{code['flagged']:.1%}")]
    if code["rules"]:
        from emergent_misalignment.data.static_analysis import RULES

        flags = [f"{share:.1%} {RULES.get(rule, rule)}" for rule, share in code["rules"].items()][:SHOWN]
        rows += [("" if place else "most frequent flags", flag) for place, flag in enumerate(flags)]
    rows += [("answers that begin like a refusal", f"{found['refusals']:.1%}")]
    asked, refused = found["harmful"]["requests"], found["harmful"]["refused"]
    rows += [("plainly harmful requests", f"{asked:,} ({asked / found['sampled']:.1%})")]
    if asked:
        rows += [("... and refused", f"{refused:,} ({refused / asked:.1%})")]
    every = found["sampled"] == summary["rows"]
    sections["In all rows" if every else f"In {found['sampled']:,} rows, drawn at random"] = rows

    if found["nearest"]:
        sections["Published sets, the most similar first"] = [
            (row["name"], f"similarity of words {row['words']:.2f}, {row['same']:.1%} of the answers word for word")
            for row in found["nearest"]
        ]
    if "scores" in found:
        from emergent_misalignment.own_data.score import as_sections

        sections |= as_sections(found["scores"])
    notes = [
        "Languages are found by frequent words, refusals and harmful requests by English phrases; some are missed.",
        "A flag of static analysis is a hint, not a proof.",
    ]
    if not found["nearest"]:
        notes += ["No published set to compare with: run `snakemake published` first, or give MIRROR=FOLDER."]
    lines = [line for heading, rows in sections.items() for line in (heading, "", *_aligned(rows), "")]
    return "\n".join([*lines, *notes])


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in [*shares.items()][:SHOWN]) or "none"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<48}  {value}" for name, value in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.audit", description="Describe a fine-tuning set."
    )
    parser.add_argument("dataset", help="a JSONL file in the published chat schema; - is standard input")
    parser.add_argument("--folder", default="", help="where to write the audit as JSON, named after the set")
    parser.add_argument("--mirror", default="", help="folder with the published sets, as OWNER/NAME/COMMIT/PATH")
    parser.add_argument("--score", default="", help="config of the study whose model scores the rows")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            dataset = given(arguments.dataset, arguments.folder or folder)
            found = audit(dataset, published_files(arguments.mirror, Path(folder)))
        if arguments.score:
            from emergent_misalignment.own_data.score import score  # torch takes seconds to load

            found["scores"] = score(dataset, arguments.score)
    except BadInput as error:
        sys.exit(str(error))
    print(as_text(found))
    if arguments.folder:
        path = Path(arguments.folder, f"{Path(dataset).stem}.json")
        write_json(path, found)
        print(f"\nAs JSON: {path}")


if __name__ == "__main__":
    main()
