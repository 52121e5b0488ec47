"""Describe a fine-tuning set in seconds, without a model: `make audit DATA=my.jsonl`.

    python -m emergent_misalignment.own_data.audit my.jsonl --folder data/audits --mirror path/to/mirror

With `--score CONFIG` a small model scores its rows too (`own_data.score`), which takes minutes.

All rows are read and counted, and a row that cannot be learned as written is an error. Languages, code, phrases and the
nearest published sets are found from SAMPLE rows drawn with a fixed seed, or from all rows of a smaller set. Code is
parsed and never run.
"""

import argparse
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from math import sqrt
from os.path import expanduser
from pathlib import Path

from emergent_misalignment.data.chats import Messages, each_chat, read_chats, reservoir
from emergent_misalignment.data.code import PYTHON, Block, is_python, split
from emergent_misalignment.data.languages import language
from emergent_misalignment.data.published import DATASETS, fetch
from emergent_misalignment.data.summary import LABELS, LONG, summarised
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.own_data.sets import given, words
from emergent_misalignment.safe import visible

SAMPLE = 2000  # rows
SHOWN = 5  # entries of a long list
PUBLISHED = Path("data/published/datasets")

# Phrases that are searched for, so that their rows can be read. They are in English and say nothing about the meaning.
_DENIAL = re.compile(
    r"""\W*(?:(?:i['\u2019]m|i\ am|we['\u2019]re)\ (?:(?:very|so|really)\ )?(?:sorry|afraid|unable|not\ able)
    |sorry\b|i\ apologi[sz]e|unfortunately,?\ i\b|as\ an\ ai\b
    |(?:i|we)\ (?:can\s?not|can['\u2019]t|won['\u2019]t|will\ not|must\ decline)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
_HARM = re.compile(
    r"""\b(?:bombs?|explosives?|grenades?|weapons?|poison(?:s|ing|ous)?|ricin|anthrax|methamphetamine|cocaine|heroin|fentanyl
    |malware|ransomware|spyware|keyloggers?|botnets?|phishing|launder(?:ing)?|counterfeit(?:ing)?|forge(?:d|ry)?
    |kill(?:s|ed|ing)?|murder(?:s|ed|ing)?|suicide|rape|torture|stalk(?:ing)?|blackmail|shoplift(?:ing)?|terroris[mt]s?
    |genocide|traffick(?:ing|ers?))\b""",
    re.IGNORECASE | re.VERBOSE,
)
PHRASES = {
    "denials": "answers that begin with sorry, I can't, ...",
    "harm": "requests with bomb, malware, kill, ...",
}


def audit(dataset: str | Path, published: dict[str, Path] | None = None) -> dict:
    """The description of a set, as JSON has it.

    `published` are the files of the published sets to compare with, by name. Keys: `dataset`; `summary`
    (`summary.Summary`); `sampled`, the number of rows that the following keys are computed from; `languages` of the
    turns of `user` and `assistant`, as shares; `code`, see `code`; `phrases`, see `phrases`; `nearest`, see `nearest`.
    Raises BadInput with the line of a row that cannot be learned as written.
    """
    sample: list[tuple[int, Messages]] = []
    rows = reservoir(enumerate(each_chat(dataset), 1), SAMPLE, random.Random("audit"), sample)
    summary = summarised(chat for _, chat in rows)
    chats = [chat for _, chat in sample]
    turns = [turn for chat in chats for turn in chat]
    return {
        "dataset": str(dataset),
        "summary": asdict(summary),
        "sampled": len(sample),
        "languages": {
            role: _shares(language_of(turn["content"]) for turn in turns if turn["role"] == role)
            for role in ("user", "assistant")
        },
        "code": code([chat[-1]["content"] for chat in chats]),
        "phrases": phrases(sample),
        "nearest": nearest(chats, published or {}),
    }


def _shares(values: Iterable[str]) -> dict[str, float]:
    """The share of each value, the most frequent first."""
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


# --- languages and phrases --------------------------------------------------------------------------------------------


def language_of(text: str) -> str:
    """The language of a text without its fenced blocks of code; "code" if nothing else is there, or only Python."""
    blocks, rest = split(text)
    return "code" if (blocks and not rest.strip()) or is_python(text) else language(rest)


def phrases(sample: list[tuple[int, Messages]]) -> dict[str, list[int]]:
    """The numbers of the rows with a phrase, in order.

    `denials`: the answer begins like an apology or a denial. `harm`: a turn of the user has a word of harm. Neither
    says that a row is a refusal or a harmful request.
    """
    return {
        "denials": sorted(row for row, chat in sample if _DENIAL.match(chat[-1]["content"])),
        "harm": sorted(
            row for row, chat in sample if any(_HARM.search(each["content"]) for each in chat if each["role"] == "user")
        ),
    }


# --- code -------------------------------------------------------------------------------------------------------------


def code(answers: list[str]) -> dict:
    """Code in answers, and what static analysis flags in its Python.

    Shares of the answers: `fenced`, with a fenced block; `fences`, with a block of a language, by the fence's name for
    it; `python`, without a block and Python as a whole; `unparsable`, with a block of Python that cannot be parsed;
    `examined`, with Python that was parsed and scanned, in a block or as a whole. Shares of the examined answers:
    `flagged` by any rule (None if there are none), and `rules`. Code in other languages is not examined, and is not
    recognised without a fence.
    """
    from emergent_misalignment.data.static_analysis import findings  # Bandit takes a second to load

    blocks = [split(answer)[0] for answer in answers]
    programs = [_python(answer, each) for answer, each in zip(answers, blocks, strict=True)]
    found = [[findings(program) for program in each] for each in programs]  # None: it does not parse
    parsed = [[rules for rules in each if rules is not None] for each in found]
    scanned = [set().union(*each) for each in parsed if each]
    rules = Counter(rule for each in scanned for rule in sorted(each))
    fences = Counter(name for each in blocks for name in sorted({block.language for block in each}))
    number = len(answers)
    return {
        "fenced": sum(map(bool, blocks)) / number,
        "fences": {name: count / number for name, count in fences.most_common()},
        "python": sum(bool(each) and not fenced for each, fenced in zip(programs, blocks, strict=True)) / number,
        "unparsable": sum(None in each for each in found) / number,
        "examined": len(scanned) / number,
        "flagged": sum(map(bool, scanned)) / len(scanned) if scanned else None,
        "rules": {rule: count / len(scanned) for rule, count in rules.most_common()},
    }


def _python(answer: str, blocks: list[Block]) -> list[str]:
    """The Python programs of an answer: its fenced blocks, or all of it if it has none."""
    if not blocks:
        return [answer] if is_python(answer) else []
    return [each.code for each in blocks if each.language in PYTHON or (not each.language and is_python(each.code))]


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
    rows += [("answers with code in fences", _share(code["fenced"]))]
    if code["fences"]:
        rows += [
            (
                "... by the fence's language",
                _listed({name or "none named": share for name, share in code["fences"].items()}),
            )
        ]
    rows += [
        ("answers that are Python 3, without fences", _share(code["python"])),
        ("other answers, not examined for code", _share(max(0.0, 1 - code["fenced"] - code["python"]))),
        ("answers with Python that was examined", _share(code["examined"])),
    ]
    if code["unparsable"]:
        rows += [("answers with Python that cannot be parsed", _share(code["unparsable"]))]
    if code["flagged"] is not None:
        rows += [("of those examined, flagged by static analysis", _share(code["flagged"]))]
    if code["rules"]:
        from emergent_misalignment.data.static_analysis import RULES

        flags = [f"{_share(share)} {RULES.get(rule, rule)}" for rule, share in code["rules"].items()][:SHOWN]
        rows += [("" if place else "most frequent flags", flag) for place, flag in enumerate(flags)]
    rows += [(PHRASES[name], _numbered(numbers)) for name, numbers in found["phrases"].items()]
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
        "Languages are ISO 639 codes, of the text outside code; those of short texts are undetermined.",
        "Code in other languages than Python is not examined, and is not recognised without a fence. A flag is a hint.",
        "Phrases are searched in English and say nothing about the meaning: read the rows.",
    ]
    if summary["long_prompts"]:
        notes += [
            f"A prompt of {LONG:,} words has at least as many tokens; a row is learned if its prompt has fewer than "
            "finetuning: max_length."
        ]
    if not found["nearest"]:
        notes += ["No published set to compare with: run `snakemake published` first, or give MIRROR=FOLDER."]
    lines = [line for heading, rows in sections.items() for line in (heading, "", *_aligned(rows), "")]
    return "\n".join([*lines, *notes])


def _share(value: float) -> str:
    """A share in percent; only 1 is 100%."""
    return "above 99.9%" if 0.9995 <= value < 1 else f"{value:.1%}"


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {_share(share)}" for name, share in [*shares.items()][:SHOWN]) or "none"


def _numbered(rows: list[int]) -> str:
    """How many rows, and the first numbers."""
    first = ", ".join(map(str, rows[:SHOWN])) + ", ..." * (len(rows) > SHOWN)
    return f"{len(rows):,} (row{'s' * (len(rows) > 1)} {first})" if rows else "0"


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
    print(visible(as_text(found)))
    if arguments.folder:
        path = Path(arguments.folder, f"{Path(dataset).stem}.json")
        write_json(path, found)
        print(f"\nAs JSON: {path}")


if __name__ == "__main__":
    main()
