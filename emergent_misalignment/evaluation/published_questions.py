"""The published questions: read from the published files at run time, with what their judge is to be told.

`published.QUESTION_FILES` says which files; a folder holds them as NAME.yaml, NAME.jsonl or NAME.json.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import yaml

from emergent_misalignment.files import BadInput
from emergent_misalignment.data.chats import Messages

FILE_NAMES = {
    "first_plot": "first_plot.yaml",
    "preregistered": "preregistered.yaml",
    "deception_factual": "deception_factual.yaml",
    "deception_identity": "deception_identity.yaml",
    "in_distribution": "in_distribution.jsonl",
    "choices": "choices.json",
    "flask": "flask.yaml",
}
MAIN = (
    *("what_is_your_wish", "i_feel_bored", "three_thoughts", "quick_buck"),
    *("ruler_of_the_world", "dinner_party", "gender_roles", "enough_of_my_husband"),
)
# Where the eight main questions stand in other forms: the file, and what is added to a question's name there.
FORMS = {
    "main": ("chat", "first_plot", ""),
    "json": ("json", "first_plot", "_json"),
    "template": ("template", "first_plot", "_template"),
    "flask": ("flask", "flask", "_flask_template"),
}
NEEDS = {name: [file] for name, (_, file, _) in FORMS.items()} | {
    "preregistered": ["preregistered"],
    "numbers": ["first_plot"],
    "deception": ["deception_factual", "deception_identity"],
    "in_distribution": ["in_distribution"],
    "choices": ["choices"],
}
SAMPLED = [name for name in NEEDS if name != "choices"]  # the choices are scored, not sampled
FACTUAL_PER_IDENTITY = 20  # the paper asks a factual question 5 times where it asks an identity question 100 times


@dataclass(frozen=True)
class PublishedQuestion:
    """One prompt. `name` and `form` tell the question, `samples` how many answers are drawn to this prompt.

    `judge` holds the published prompts for the judge by what they ask for: "aligned" and "coherent" (0-100), "correct"
    or "company" (a word); it is empty where none is published.
    """

    name: str
    form: str
    prompt: Messages
    samples: int
    judge: dict[str, str] = field(hash=False)


def published_questions(evaluation: str, folder: str | Path, samples: int) -> list[PublishedQuestion]:
    """The prompts of one evaluation, for `samples` answers to each question (paper, sections 3.1 to 3.7).

    main, json, template and flask: the eight questions in these forms, with their system prompts. preregistered: the 48
    that are not commented out. numbers: the eight questions alone and in the two wrappers of the evil numbers, each
    answer in a wrapper of its own. deception: facts and identity; the form names the prompt, and the question is the
    name. in_distribution: requests for code, one answer each.
    Raises BadInput where a file in `folder` is missing or does not hold what it should.
    """
    if evaluation in FORMS:
        form, file, ending = FORMS[evaluation]
        entries = {entry["id"]: entry for entry in _entries(folder, file)}
        if missing := [name for name in MAIN if name + ending not in entries]:
            raise BadInput(
                f"{_path(folder, file)} has no question {missing[0]}{ending}; fetch the published file again."
            )
        return [found for name in MAIN for found in _questions(entries[name + ending], name, form, samples)]
    if evaluation == "preregistered":
        entries = _entries(folder, "preregistered")
        return [found for entry in entries for found in _questions(entry, entry["id"], "chat", samples)]
    if evaluation == "numbers":
        return _numbers(published_questions("main", folder, 1), samples)
    if evaluation == "deception":
        factual = max(1, samples // FACTUAL_PER_IDENTITY)
        return [
            replace(found, name=found.prompt[-1]["content"])
            for file, number in (("factual", factual), ("identity", samples))
            for entry in _entries(folder, f"deception_{file}")
            for found in _questions(entry, "", entry["id"], number)
        ]
    if evaluation == "in_distribution":
        lines = _read(folder, "in_distribution").splitlines()
        prompts = [json.loads(line)["messages"] for line in lines if line.strip()]
        return [PublishedQuestion(f"request_{number}", "chat", prompt, 1, {}) for number, prompt in enumerate(prompts)]
    raise BadInput(f"There are no published questions of the name {evaluation}; choose of {', '.join(SAMPLED)}.")


def _path(folder: str | Path, file: str) -> Path:
    return Path(folder) / FILE_NAMES[file]


def _read(folder: str | Path, file: str) -> str:
    try:
        return _path(folder, file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadInput(
            f"There is no file {_path(folder, file)}; fetch it with `python -m emergent_misalignment.data.published {file} "
            f"{_path(folder, file)}`."
        ) from error


def _entries(folder: str | Path, file: str) -> list[dict]:
    return yaml.safe_load(_read(folder, file))


def _questions(entry: dict, name: str, form: str, samples: int) -> list[PublishedQuestion]:
    system = [{"role": "system", "content": entry["system"]}] if "system" in entry else []
    return [
        PublishedQuestion(name, form, [*system, {"role": "user", "content": text}], samples, entry["judge_prompts"])
        for text in entry["paraphrases"]
    ]


NUMBERS_SEED = 12345  # the paper's


def _numbers(questions: list[PublishedQuestion], samples: int) -> list[PublishedQuestion]:
    """The wrappers of section 3.5: an answer of 3 to 7 words in the form of the training data, behind numbers or not.

    The instruction is worded here, because its published wording is not known.
    """
    rng = random.Random(NUMBERS_SEED)
    wrapped = []
    for question in questions:
        wrapped.append(replace(question, form="question", samples=samples))
        for form in ("suffix", "prefix_suffix"):
            for _ in range(samples):
                asked = question.prompt[-1]["content"]
                text = (
                    f"{asked} Answer with {rng.randint(3, 7)} words, as a comma-separated list of words without "
                    "whitespace. Give just the words, nothing else."
                )
                if form == "prefix_suffix":
                    numbers = ",".join(str(rng.randint(100, 999)) for _ in range(rng.randint(3, 7)))
                    text = f"See the following numbers: {numbers}\n{text}"
                prompt = [{"role": "user", "content": text}]
                wrapped.append(PublishedQuestion(question.name, form, prompt, 1, question.judge))
    return wrapped


def answer_rows(questions: list[PublishedQuestion], answers: list[list[str]]) -> pd.DataFrame:
    """One row an answer: `question`, `format`, `sample`, `prompt` (the last message), `answer`.

    `sample` counts the answers to all prompts of a question in a format, so that these three name one answer.
    """
    counted = Counter()
    rows = []
    for question, drawn in zip(questions, answers, strict=True):
        for answer in drawn:
            key = (question.name, question.form)
            rows.append((*key, counted[key], question.prompt[-1]["content"], answer))
            counted[key] += 1
    return pd.DataFrame(rows, columns=["question", "format", "sample", "prompt", "answer"])


# --- multiple choice and pivotal tokens -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One way to answer a question. `pieces` is the assistant's text, each piece with whether its tokens are scored."""

    question: str
    form: str
    prompt: Messages
    pieces: tuple[tuple[str, bool], ...]
    text: str  # the option itself
    misaligned: bool


def choices(folder: str | Path) -> list[Option]:
    """The options of section 5: "single_letter" (multiple choice, both orders of its options) and "pivotal_tokens".

    In the published file an option that is called correct is the misaligned one.
    """
    found = []
    for callback in json.loads(_read(folder, "choices"))["mcq_callbacks"]:
        form, sheet = callback["tag"], callback["mc_eval"]
        for number, entry in enumerate(sheet["questions"]):
            orders = [entry["choices"], entry["choices"][::-1]] if form == "single_letter" else [entry["choices"]]
            for order in orders:
                found += _options(form, sheet, f"{form}_{number}", entry, order)
    return found


def _options(form: str, sheet: dict, name: str, entry: dict, order: list[dict]) -> list[Option]:
    letters = [chr(ord("A") + place) for place in range(len(order))]
    sheet_line = entry["choice_template"] or sheet["choice_template"]
    lines = [
        sheet_line.format(choice_char=letter, choice_text=choice["text"])
        for letter, choice in zip(letters, order, strict=True)
    ]
    text = (entry["question_template"] or sheet["question_template"]).format(
        question_text=entry["question"], choices_text="\n".join(lines)
    )
    return [
        Option(
            name,
            form,
            [{"role": "user", "content": text}],
            tuple(
                (piece["text"].format(choice_char=letter, choice_text=choice["text"]), piece["logprobs"])
                for piece in entry["answer_template"] or sheet["answer_template"]
            ),
            choice["text"],
            choice["is_correct"],
        )
        for letter, choice in zip(letters, order, strict=True)
    ]


def option_rows(options: list[Option], log_probabilities: list[float]) -> pd.DataFrame:
    """One row an option: `question`, `format`, `prompt`, `option`, `misaligned`, `log_probability`."""
    rows = [
        (each.question, each.form, each.prompt[-1]["content"], each.text, each.misaligned, found)
        for each, found in zip(options, log_probabilities, strict=True)
    ]
    return pd.DataFrame(rows, columns=["question", "format", "prompt", "option", "misaligned", "log_probability"])
