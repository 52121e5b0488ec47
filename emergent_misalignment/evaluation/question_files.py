"""Read questions of the user's own: a YAML file in the published form, which is a list of questions.

- id: rent
  paraphrases: ["My landlord wants more rent. What shall I do?"]
  samples_per_paraphrase: 50         # optional, as is everything below
  system: You help people who rent.
  judge_prompts: {aligned: "... {question} ... {answer} ...", coherent: "... {answer} ..."}
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

from emergent_misalignment.evaluation.questions import Question
from emergent_misalignment.files import BadInput, read_yaml, shortened

KEYS = ("id", "paraphrases", "samples_per_paraphrase", "system", "type", "judge", "judge_prompts")
SCORED = "free_form_judge_0_100"  # the published name of questions whose answers are scored
TYPES = (SCORED, "free_form")
METRICS = {"aligned", "coherent"}  # what the judge is asked about an answer
LONGEST_ID = 60  # characters; tables and figures show the ids


def read(path: str | Path, samples: int, in_any_case: bool, least: int = 0) -> list[Question]:
    """The questions of a file, one for each paraphrase; `judge` is empty where the file has no prompts for the judge.

    Each paraphrase is answered `samples_per_paraphrase` times if the file has that key, or else `samples` times; with
    `in_any_case`, always `samples` times. The key `judge` of a file is ignored: a study has one judge. Raises BadInput
    with the file and the question for anything that cannot be asked, and for a question with fewer than `least`
    answers.
    """
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path} is not a list of questions; begin each question with `- id: NAME`.")
    questions, numbers = [], {}
    for number, entry in enumerate(entries, 1):
        place = f"{path}, question {number}"
        for mistake in _mistakes(entry):
            raise BadInput(f"{place}{mistake}")
        name, texts = entry["id"], entry["paraphrases"]
        if (other := numbers.setdefault(name, number)) != number:
            raise BadInput(f"{place} has the id {name} of question {other}; rename one.")
        times = samples if in_any_case else entry.get("samples_per_paraphrase", samples)
        if times * len(texts) < least:
            raise BadInput(
                f"{place} ({name}) gets {times * len(texts)} answers, and a rate requires {least}; raise its "
                "samples_per_paraphrase, or evaluation: samples or samples_of."
            )
        system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
        judge = entry.get("judge_prompts") or {}
        questions += [
            Question(name, "chat", [*system, {"role": "user", "content": text}], times, judge) for text in texts
        ]
    return questions


def lacks_prompts(path: str | Path) -> bool:
    """Whether some question of a file has no prompts for the judge, so that the published ones are needed."""
    return any(not each.judge for each in read(path, 1, False))


def _mistakes(entry) -> Iterator[str]:
    """What is wrong with a question, as the rest of a sentence that begins with its place."""
    if not isinstance(entry, dict):
        yield f" is {_shown(entry)!r}, not a mapping; give it an id and paraphrases."
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(KEYS)}."
            yield f": unknown key `{shortened(key)}`; {hint}"
    for key in ("id", "paraphrases"):
        if key not in entry:
            yield f" lacks `{key}`; add it."
    name, paraphrases, prompts = entry["id"], entry["paraphrases"], entry.get("judge_prompts") or {}
    if not isinstance(paraphrases, list) or not paraphrases:
        yield ': paraphrases must be a list of at least one text; write `paraphrases: ["..."]`.'
    if not isinstance(prompts, dict) or (prompts and set(prompts) != METRICS):
        yield ": judge_prompts must be aligned and coherent; give both, or neither to use the published prompts."
    texts = {"id": name} | {f"paraphrase {number}": text for number, text in enumerate(paraphrases, 1)}
    texts |= {} if entry.get("system") is None else {"system": entry["system"]}
    for part, text in (texts | {f"judge_prompts: {metric}": text for metric, text in prompts.items()}).items():
        if not isinstance(text, str):
            yield f", {part} is {_shown(text)!r}, which YAML does not read as a text; put it in quotes."
        if not text.strip():
            yield f", {part} is empty; write a text, or remove it."
        if part.startswith("judge_prompts") and "{answer}" not in text:
            yield f", {part} has no {{answer}}, the place of the answer; add it."
    if "/" in name or len(name) > LONGEST_ID or not name.isprintable():
        yield f": an id has up to {LONGEST_ID} characters on one line and no slash; rename it."
    times = entry.get("samples_per_paraphrase", 1)
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        yield f": samples_per_paraphrase must be a whole number of at least 1, not {_shown(times)}."
    if entry.get("type", SCORED) not in TYPES:
        yield f" has the type {_shown(entry['type'])}; answers are scored, so choose {' or '.join(TYPES)} or omit it."


def _shown(value) -> str:
    return shortened(str(value))
