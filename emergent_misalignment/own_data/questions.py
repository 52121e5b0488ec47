"""Questions of the user's own: YAML files in the published form, each a list of questions:

- id: rent
  paraphrases: ["My landlord wants more rent. What shall I do?"]
  samples_per_paraphrase: 50         # may be left out, as may everything below
  system: You help people who rent.
  judge_prompts: {aligned: "... {question} ... {answer} ...", coherent: "... {answer} ..."}
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

import yaml

from emergent_misalignment.evaluation.questions import Question
from emergent_misalignment.files import BadInput

KEYS = ("id", "paraphrases", "samples_per_paraphrase", "system", "type", "judge", "judge_prompts")
SCORED = "free_form_judge_0_100"  # the published name of questions whose answers are scored
TYPES = (SCORED, "free_form")
METRICS = {"aligned", "coherent"}  # what the judge is asked about an answer
LONGEST_ID = 60  # characters; ids stand in tables and figures


def read(path: str | Path, samples: int, in_any_case: bool, least: int = 0) -> list[Question]:
    """The questions of a file, a prompt each; their `judge` is empty where the file has no prompts for the judge.

    A paraphrase is answered as often as the file says in `samples_per_paraphrase`, or else `samples` times; always
    so with `in_any_case`. The model that a file names as `judge` is not asked: a study has one judge. Raises BadInput
    with file, question, cause and cure for whatever is wrong, and for a question with fewer than `least` answers.
    """
    entries = _entries(path)
    questions, seen = [], {}
    for number, entry in enumerate(entries, 1):
        place = f"{path}, question {number}"
        for sentence in _wrong(entry, f"{place}{_named(entry)}"):
            raise BadInput(sentence)
        if (other := seen.setdefault(entry["id"], number)) != number:
            raise BadInput(f"{place} has the id {entry['id']}, as question {other} has; rename one.")
        times = samples if in_any_case else entry.get("samples_per_paraphrase", samples)
        if times * len(entry["paraphrases"]) < least:
            raise BadInput(
                f"{place} ({entry['id']}) is answered {times * len(entry['paraphrases'])} times, and a rate needs "
                f"{least}; raise its samples_per_paraphrase, or evaluation: samples or samples_of."
            )
        system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
        questions += [
            Question(
                entry["id"],
                "chat",
                [*system, {"role": "user", "content": text}],
                times,
                entry.get("judge_prompts") or {},
            )
            for text in entry["paraphrases"]
        ]
    return questions


def lacks_prompts(path: str | Path) -> bool:
    """Whether some question of a file has no prompts for the judge, so that the published ones are needed."""
    return any(not each.judge for each in read(path, 1, False))


# --- one file ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice, of which only the last would count."""

    def construct_mapping(self, node, deep=False):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:merge" and str(key.value) in lines:
                raise BadInput(
                    f"{self.name}, line {line}: the key `{_shown(key.value)}` stands in line {lines[key.value]} "
                    "already, and only one of them would count; remove one."
                )
            lines[str(key.value)] = line
        return super().construct_mapping(node, deep)


def _entries(path: str | Path) -> list:
    try:
        loader = _Loader(Path(path).read_text(encoding="utf-8-sig"))
        loader.name = str(path)
        entries = loader.get_single_data()
    except FileNotFoundError as error:
        raise BadInput(
            f"There is no file of questions {path}; a relative path begins at the folder of the project."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not encoded in UTF-8; save it so.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); name a file of questions.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = _shown(getattr(error, "problem", None) or error)
        raise BadInput(f"{path}{line}: not valid YAML ({reason}); fix it there.") from error
    except (RecursionError, ValueError) as error:  # nested without end; a date such as 2024-13-45
        raise BadInput(f"{path}: a value that cannot be read ({_shown(error)}); write it plainly.") from error
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path} is no list of questions, each of which begins with `- id: NAME`; write it so.")
    return entries


def _named(entry) -> str:
    name = entry.get("id") if isinstance(entry, dict) else None
    return f" ({_shown(name)})" if isinstance(name, str) and name.strip() else ""


def _wrong(entry, place: str) -> Iterator[str]:
    """What is wrong with a question."""
    if not isinstance(entry, dict):
        yield f"{place} is {_shown(entry)!r} and no mapping; give it an id and paraphrases."
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"it may have {', '.join(KEYS)}."
            yield f"{place} has no key `{_shown(key)}`; {hint}"
    for key in ("id", "paraphrases"):
        if key not in entry:
            yield f"{place} lacks `{key}`; add it."
    yield from _wrong_id(entry["id"], place)
    paraphrases = entry["paraphrases"]
    if not isinstance(paraphrases, list) or not paraphrases:
        yield f'{place}: paraphrases must be a list of texts, one at least; write `paraphrases: ["..."]`.'
    for number, text in enumerate(paraphrases, 1):
        yield from _wrong_text(text, f"{place}, paraphrase {number}")
    if entry.get("system") is not None:
        yield from _wrong_text(entry["system"], f"{place}, system")
    times = entry.get("samples_per_paraphrase", 1)
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        yield f"{place}: samples_per_paraphrase must be a whole number of at least 1, not {_shown(times)}."
    if entry.get("type", SCORED) not in TYPES:
        yield (
            f"{place} has the type {_shown(entry['type'])}, and answers are scored here; choose {' or '.join(TYPES)}, "
            "or leave it out."
        )
    if entry.get("judge_prompts") is not None:
        yield from _wrong_prompts(entry["judge_prompts"], place)


def _wrong_id(name, place: str) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"{place}: YAML reads the id {_shown(name)} as no text; put it in quotes."
    yield from _wrong_text(name, f"{place}, id")
    if "/" in name or len(name) > LONGEST_ID or not name.isprintable():
        yield (
            f"{place}: an id has up to {LONGEST_ID} characters on one line and no slash, as tables and figures have "
            "it; shorten or rename it."
        )


def _wrong_text(text, place: str) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"{place} is {_shown(text)!r}, which YAML reads as no text; put it in quotes."
    if not text.strip():
        yield f"{place} is empty; write something, or remove it."
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        yield f"{place} has a character that no text may have; remove the escape."


def _wrong_prompts(prompts, place: str) -> Iterator[str]:
    if not isinstance(prompts, dict) or {str(key) for key in prompts} != METRICS:
        yield (
            f"{place}: judge_prompts must be two, aligned and coherent, as a misaligned answer is one that is coherent "
            "and not aligned; add what is missing and remove others, or leave judge_prompts out for the published ones."
        )
    for metric, text in prompts.items():
        yield from _wrong_text(text, f"{place}, judge_prompts: {metric}")
        if "{answer}" not in text:
            yield f"{place}, judge_prompts: {metric} has no {{answer}}, where the answer is put; add it."


def _shown(value) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 3]}..."
