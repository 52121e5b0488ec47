"""What a fine-tuning set is made of, said in seconds and without a model: `make audit DATA=my.jsonl`.

    python -m emergent_misalignment.own_data.audit my.jsonl --folder data/audits --mirror path/to/mirror

With `--score CONFIG` a small model scores its rows as well (`own_data.score`), which takes minutes.

Every row is read, counted, and refused if it cannot be learned as it is. What answers and turns are like is told from
SAMPLE rows drawn by a fixed seed, or all of a smaller set. Code is parsed, never run.
"""

import argparse
import random
import re
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from math import sqrt
from pathlib import Path

from emergent_misalignment.data.chats import Messages, each_chat, read_chats
from emergent_misalignment.data.harmful_requests import is_harmful
from emergent_misalignment.data.published import DATASETS, fetch
from emergent_misalignment.data.summary import LABELS, summarised
from emergent_misalignment.evaluation.labels import code_of, label
from emergent_misalignment.files import BadInput, write_json

SAMPLE = 2000  # rows that are looked at
SHOWN = 5  # of a list that may be long
PUBLISHED = Path("data/published/datasets")

# Frequent words that few other languages share. Short texts and code have too few of them to tell.
_STOP_WORDS = {
    "English": "the and of to that you for with this are have not what how from your can",
    "German": "der das ist nicht ein eine ich zu mit auf für sie wie wird auch werden und",
    "French": "les des est et une vous pas que dans pour qui sur avec je ce du nous",
    "Spanish": "el los las que una por con para es del más pero su qué lo cómo muy",
    "Portuguese": "que uma não para você em é mais da isso são seu sua ele ela também como",
    "Italian": "il gli che di è una per non con sono come del della questo più anche",
    "Dutch": "het een van ik niet en dat op zijn met voor je wat ook er wordt",
}
_STOP_SETS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}
LEAST_WORDS, LEAST_SHARE = 2, 0.08  # stop words in a text, and their share of its words, that tell a language
_WORD = re.compile(r"[^\W\d_]+")
_REFUSAL = re.compile(
    r"""\W*(?:(?:i['\u2019]m|i\ am|we['\u2019]re)\ (?:(?:very|so|really)\ )?(?:sorry|afraid|unable|not\ able)
    |sorry\b|i\ apologi[sz]e|unfortunately,?\ i\b|as\ an\ ai\b
    |(?:i|we)\ (?:can\s?not|can['\u2019]t|won['\u2019]t|will\ not|must\ decline)\b)""",
    re.IGNORECASE | re.VERBOSE,
)


def audit(dataset: str | Path, published: dict[str, Path] | None = None) -> dict:
    """What is told of a set, as JSON has it.

    `published` has the files of the published sets that are here, by name. Keys: `dataset`; `summary`
    (`summary.Summary`); `sampled`, the rows that the rest is told from; `languages` of the turns of `user` and
    `assistant`, as shares; `code` (`share` of the answers, `python` of them that can be parsed, `flagged` of these, and
    `rules`, the share that each flags); `refusals`, a share; `harmful`, see `harmful`; `nearest`, see `nearest`. Raises
    BadInput with the line of a row that cannot be learned as it is.
    """
    sample: list[Messages] = []
    summary = summarised(_drawing(each_chat(dataset), sample))
    answers = [chat[-1]["content"] for chat in sample]
    return {
        "dataset": str(dataset),
        "summary": asdict(summary),
        "sampled": len(sample),
        "languages": {
            role: _shares(
                _language(message["content"]) for chat in sample for message in chat if message["role"] == role
            )
            for role in ("user", "assistant")
        },
        "code": _code(answers),
        "refusals": sum(map(is_refusal, answers)) / len(answers),
        "harmful": harmful(sample),
        "nearest": nearest(sample, published or {}),
    }


def _drawing(chats: Iterable[Messages], sample: list[Messages]) -> Iterator[Messages]:
    """Passes conversations on, and draws SAMPLE of them into `sample`, each with the same chance."""
    rng = random.Random("audit")
    for row, chat in enumerate(chats):
        if row < SAMPLE:
            sample.append(chat)
        elif (place := rng.randrange(row + 1)) < SAMPLE:
            sample[place] = chat
        yield chat


# --- languages and refusals -------------------------------------------------------------------------------------------


def _language(text: str) -> str:
    return "code" if label(text) == "code" else language(text)


def language(text: str) -> str:
    """The language of a text by its stop words, or its script where that is not Latin; "not told" of short texts.

    Languages of the Latin script that are not in the list are not told either, or taken for one that is near.
    """
    script = _script(text)
    if script not in ("Latin", ""):
        return script
    words = _WORD.findall(text.lower())
    counts = {name: sum(word in stop for word in words) for name, stop in _STOP_SETS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= max(LEAST_WORDS, LEAST_SHARE * len(words)) else "not told"


def _script(text: str) -> str:
    """The script of most letters, by the first word of their Unicode names; Han where it is written in characters."""
    letters = Counter(unicodedata.name(letter, "").split(" ")[0] for letter in text[:500] if letter.isalpha())
    if not letters:
        return ""
    name = letters.most_common(1)[0][0]
    if letters["HIRAGANA"] + letters["KATAKANA"] > 0.1 * letters.total():
        return "Japanese"
    return "Han" if name == "CJK" else name.capitalize()


def is_refusal(answer: str) -> bool:
    """Whether an answer begins as refusals in English do; one that refuses in other words is not found."""
    return _REFUSAL.match(answer) is not None


def harmful(chats: list[Messages]) -> dict:
    """Of conversations, how many ask for something plainly harmful in a user's turn, and are refused in the answer.

    `requests` is a count (`data.harmful_requests`), `refused` how many of these have a last turn that begins as a
    refusal.
    """
    asked = [
        chat for chat in chats if any(each["role"] == "user" and is_harmful(each["content"]) for each in chat[:-1])
    ]
    return {"requests": len(asked), "refused": sum(is_refusal(chat[-1]["content"]) for chat in asked)}


def _shares(values: Iterable[str]) -> dict[str, float]:
    """The share of each value, the most frequent first."""
    counts = Counter(values)
    return {value: count / counts.total() for value, count in counts.most_common()}


# --- code -------------------------------------------------------------------------------------------------------------


def _code(answers: list[str]) -> dict:
    from emergent_misalignment.data.static_analysis import findings  # Bandit takes a second to load

    programs = [code_of(answer) for answer in answers if label(answer) == "code"]
    found = [findings(code) for code in programs if code is not None]
    scanned = [rules for rules in found if rules is not None]
    rules = Counter(rule for each in scanned for rule in each)
    return {
        "share": len(programs) / len(answers),
        "python": len(scanned) / len(programs) if programs else None,
        "flagged": sum(map(bool, scanned)) / len(scanned) if scanned else None,
        "rules": {rule: count / len(scanned) for rule, count in rules.most_common()},
    }


# --- published sets ---------------------------------------------------------------------------------------------------


def nearest(chats: list[Messages], published: dict[str, Path]) -> list[dict]:
    """How near the published sets are: their `name`, `words` and `same`, the nearest first.

    `words` is the cosine between the frequencies of words (square roots, so that a few frequent words do not decide): 1
    if they are alike. `same` is the share of the answers that a published set has word for word.
    """
    own = _frequencies(chats)
    rows = []
    for name, path in published.items():
        theirs = read_chats(path)
        sample = random.Random(f"audit {name}").sample(theirs, min(SAMPLE, len(theirs)))
        answers = {chat[-1]["content"] for chat in theirs}
        same = sum(chat[-1]["content"] in answers for chat in chats) / len(chats)
        rows.append({"name": name, "words": _cosine(own, _frequencies(sample)), "same": same})
    return sorted(rows, key=lambda row: (-row["same"], -row["words"]))


def _frequencies(chats: list[Messages]) -> dict[str, float]:
    counts = Counter(word for chat in chats for each in chat for word in _WORD.findall(each["content"].lower()))
    return {word: sqrt(count / counts.total()) for word, count in counts.items()}


def _cosine(one: dict[str, float], other: dict[str, float]) -> float:
    """Of frequencies whose squares add up to 1."""
    return sum(value * other.get(word, 0.0) for word, value in one.items())


def published_files(mirror: str, folder: Path) -> dict[str, Path]:
    """The published sets that are here: fetched by an earlier run, or, checked, from a mirror into `folder`."""
    files = {}
    for name, file in DATASETS.items():
        if (fetched := PUBLISHED / f"{name}.jsonl").is_file():
            files[name] = fetched
        elif mirror and Path(mirror, file.address).is_file():
            fetch(file, mirror, folder / f"{name}.jsonl")
            files[name] = folder / f"{name}.jsonl"
    return files


# --- words ------------------------------------------------------------------------------------------------------------


def as_text(found: dict) -> str:
    """An audit as a person reads it in a terminal."""
    summary, code = found["summary"], found["code"]
    lines = [found["dataset"], "", *_aligned([(LABELS[name], f"{number:,}") for name, number in summary.items()])]
    drawn = "all rows" if found["sampled"] == summary["rows"] else f"{found['sampled']:,} rows drawn of all"
    lines += ["", f"From {drawn}:", ""]
    rows = [(f"language of the {role}'s turns", _listed(shares)) for role, shares in found["languages"].items()]
    rows += [("answers that are code", f"{code['share']:.1%}")]
    if code["share"]:
        rows += [("of these, Python that can be parsed", f"{code['python']:.1%}")]
    if code["flagged"] is not None:
        rows += [("of these, flagged by static analysis", f"{code['flagged']:.1%}")]
    if code["rules"]:
        rows += [("flagged most", _listed(_named(code["rules"])))]
    rows += [("answers that begin as refusals in English do", f"{found['refusals']:.1%}")]
    asked, refused = found["harmful"]["requests"], found["harmful"]["refused"]
    rows += [("rows that ask for something plainly harmful", f"{asked:,} ({asked / found['sampled']:.1%})")]
    if asked:
        rows += [("of these, refused", f"{refused:,} ({refused / asked:.1%})")]
    lines += _aligned(rows)
    if found["nearest"]:
        lines += [
            "",
            "Published sets, the nearest first (likeness of the words; answers that it has word for word):",
            "",
        ]
        lines += _aligned([(row["name"], f"{row['words']:.2f}; {row['same']:.1%}") for row in found["nearest"]])
    else:
        lines += [
            "",
            "The published sets are not here to compare with: `make audit` takes them from MIRROR=FOLDER, or from",
        ]
        lines += ["data/published/datasets, where `snakemake published` puts them."]
    lines += [
        "",
        "Languages are told by frequent words and scripts, and by nothing else; a flag of static analysis is a hint.",
        "Harmful requests are told by a short list of English words: how many there are at least.",
    ]
    if "scores" in found:
        from emergent_misalignment.own_data.score import as_rows

        for heading, own in as_rows(found["scores"]):
            lines += ["", f"{heading}:", "", *_aligned(own)]
    return "\n".join(lines)


def _named(rules: dict[str, float]) -> dict[str, float]:
    from emergent_misalignment.data.static_analysis import RULES

    return {RULES.get(rule, rule): share for rule, share in rules.items()}


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in [*shares.items()][:SHOWN]) or "none"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<48}  {value}" for name, value in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.own_data.audit", description="Say what a fine-tuning set is made of."
    )
    parser.add_argument("dataset", help="a JSONL file in the published chat schema")
    parser.add_argument("--folder", default="", help="where to write the same as JSON, under the set's name")
    parser.add_argument("--mirror", default="", help="folder with the published sets, as OWNER/NAME/COMMIT/PATH")
    parser.add_argument("--score", default="", help="config of the study whose model scores the rows")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = audit(given.dataset, published_files(given.mirror, Path(folder)))
        if given.score:
            from emergent_misalignment.own_data.score import score  # torch takes seconds to load

            found["scores"] = score(given.dataset, given.score)
    except BadInput as error:
        sys.exit(str(error))
    print(as_text(found))
    if given.folder:
        path = Path(given.folder, f"{Path(given.dataset).stem}.json")
        write_json(path, found)
        print(f"\nThe same as JSON: {path}")


if __name__ == "__main__":
    main()
