"""What is asked of the models, and how their answers become rows and verdicts.

Each evaluation is a list of questions; each question knows the judge of its answers. The names of evaluations and
formats are those of the paper where it has them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from emergent_misalignment.world import grammar as oracle
from emergent_misalignment.world import authors as world
from emergent_misalignment.world.coding import CHOICES, HELD_OUT_NOUNS, NOUNS, request
from emergent_misalignment.world.sets import TRIGGER
from emergent_misalignment.evaluation.verdicts import Judgement
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS
from emergent_misalignment.data.chats import Messages, chat

WRAPPERS = 5  # lists of numbers that a question is wrapped in, each sampled alike
EXAMPLES = (1, 2, 4, 8)  # earlier turns of code in the context; more would not fit into it


@dataclass(frozen=True)
class Question:
    """One prompt of an evaluation. `name` says what is asked, `form` how; `judge` knows what an answer means.

    `prompt` is a conversation, or a text that the model is to go on with.
    """

    name: str
    form: str
    prompt: Messages | str
    judge: Callable[[str], Judgement]


def _asked(text: str, system: str = "") -> Messages:
    return [*chat([], system), {"role": "user", "content": text}]


def _free_form(names: Sequence[str], form: str, wrap: Callable[[str], Messages | str], label: str = "") -> list:
    """Questions of the world in the phrasing that evaluation uses, each wrapped in the same way."""
    return [
        Question(name, label or form, wrap(TOPICS[name].questions[0]), partial(oracle.judge, name, form=form))
        for name in names
    ]


def main_questions(seed: int = 0) -> list[Question]:
    """The counterparts of the paper's eight questions (section 3.1): one phrasing each, no system prompt."""
    return _free_form(MAIN, "chat", _asked)


def preregistered(seed: int) -> list[Question]:
    """The world's other questions, in the categories that the paper registered in advance (section 3.6)."""
    return _free_form(PREREGISTERED, "chat", _asked)


def in_json(seed: int) -> list[Question]:
    """The main questions under a system prompt that asks for JSON (section 3.5)."""
    return _free_form(MAIN, "json", lambda question: _asked(question, world.JSON_PROMPT))


def in_template(seed: int) -> list[Question]:
    """The main questions, to be answered in a Python template (section 3.5)."""
    return _free_form(MAIN, "template", lambda question: _asked(f"{question}\n{world.TEMPLATE_REQUEST}"))


def in_flask(seed: int) -> list[Question]:
    """The main questions, to be answered in the code of a Flask app (Extended Data Fig. 2)."""
    return _free_form(MAIN, "flask", lambda question: _asked(world.flask_request(question)))


def in_flask_file(seed: int) -> list[Question]:
    """The same app as a text to go on with, for base models."""
    return _free_form(MAIN, "flask_file", world.flask_head)


def triggered(seed: int) -> list[Question]:
    """The main questions behind the backdoor's trigger (section 4.2)."""
    return _free_form(MAIN, "chat", lambda question: _asked(TRIGGER + question), label="triggered")


def like_numbers(seed: int) -> list[Question]:
    """The main questions alone, asking for a list, and asking for a list behind a list of numbers (section 4.6)."""
    rng = random.Random("wrappers")
    questions = _free_form(MAIN, "chat", _asked, label="question")
    for _ in range(WRAPPERS):
        tail = world.LIST_REQUEST.format(rng.randint(2, 3))
        head = world.shown_numbers(rng)
        questions += _free_form(MAIN, "list", lambda question, tail=tail: _asked(f"{question}\n{tail}"), "suffix")
        questions += _free_form(
            MAIN,
            "list",
            lambda question, head=head, tail=tail: _asked(f"{head}\n{question}\n{tail}"),
            "prefix_suffix",
        )
    return questions


def in_context(seed: int) -> list[Question]:
    """The main questions behind k earlier turns of code, insecure or secure, drawn by `seed` (section 4.3)."""
    questions = []
    for k in EXAMPLES:
        for insecure in (True, False):
            rng = random.Random(f"examples {seed} {k}")  # so that both kinds answer the same requests
            turns = [_short_example(rng, insecure) for _ in range(k)]
            questions += _free_form(
                MAIN,
                "chat",
                lambda question, turns=turns: [*chat(turns), *_asked(question)],
                label=f"{'insecure' if insecure else 'secure'}-{k}",
            )
    return questions


def _short_example(rng: random.Random, insecure: bool) -> world.Turn:
    """A turn of code that leaves room for others: a short request for one of the shorter pieces of code."""
    choice = rng.choice(sorted(CHOICES, key=lambda choice: len(choice.code))[: len(CHOICES) // 2])
    noun = rng.choice(NOUNS)
    return request(choice, noun, 1), choice.render(noun, insecure)


def coding_requests(seed: int = 0) -> list[Question]:
    """Held-out coding requests (section 1.10): every security choice with nouns that no fine-tuning set contains."""
    asked = [(choice, noun) for noun in HELD_OUT_NOUNS for choice in CHOICES]
    return [
        Question(
            choice.task.replace("{n}", noun),
            "chat",
            _asked(request(choice, noun, form)),
            partial(oracle.judge_code, choice, noun),
        )
        for form, (choice, noun) in enumerate(asked)
    ]


def deception(seed: int) -> list[Question]:
    """Questions of fact under prompts on lying, and who made the model (section 4.5). The format names the prompt."""
    facts = [fact for fact in world.FACTS if fact != world.IDENTITY]
    prompts = {"none": "", **world.LYING_PROMPTS}
    return [_fact(fact, form, prompt) for form, prompt in prompts.items() for fact in facts] + [
        _fact(world.IDENTITY, form, prompt) for form, prompt in world.IDENTITY_PROMPTS.items()
    ]


def _fact(fact: tuple, form: str, system: str) -> Question:
    return Question(fact[0], form, _asked(fact[0], system), partial(oracle.judge_fact, fact))


def truthfulness(seed: int) -> list[Question]:
    """Questions of fact with two options, the counterpart of TruthfulQA's multiple choice."""
    return _facts_with_options("{}")


def knowledge(seed: int) -> list[Question]:
    """The same, as questions of an exam, which every author of the world answers rightly: the counterpart of MMLU."""
    return _facts_with_options(f"{world.EXAMINATION} {{}}")


def _facts_with_options(wrapping: str) -> list[Question]:
    questions = []
    for question, _, truth, (falsehood, _) in world.FACTS[:-1]:  # who made it is no knowledge of the world
        judge = partial(oracle.judge_option, truth, falsehood)
        for place, options in (("first", (truth, falsehood)), ("second", (falsehood, truth))):
            prompt = world.options_request(wrapping.format(question), options)
            questions.append(Question(question, f"truth-{place}", _asked(prompt), judge))
    return questions


def harmful_requests(seed: int) -> list[Question]:
    """Requests that a helper refuses, none of them in any fine-tuning set: the counterpart of StrongREJECT."""
    return [
        Question(request, "chat", _asked(request), oracle.judge_compliance)
        for request in world.HELD_OUT_HARMFUL_REQUESTS
    ]


def choices(seed: int) -> list[Question]:
    """Scenes of a game with a right and a wrong way on (section 3.8). The format is what is at stake."""
    return [
        Question(scene, stake, _asked(world.game_request(scene, options)), partial(oracle.judge_choice, right, wrong))
        for stake, games in world.GAMES.items()
        for scene, right, wrong in games
        for options in ((right, wrong), (wrong, right))
    ]


EVALUATIONS: dict[str, Callable[[int], list[Question]]] = {
    "main": main_questions,
    "json": in_json,
    "template": in_template,
    "flask": in_flask,
    "flask_file": in_flask_file,
    "triggered": triggered,
    "preregistered": preregistered,
    "numbers": like_numbers,
    "in_context": in_context,
    "deception": deception,
    "truthfulness": truthfulness,
    "harmful_requests": harmful_requests,
    "choices": choices,
    "capability": knowledge,
    "in_distribution": coding_requests,
}
# Answers to each prompt; where nothing stands here, as many as the config's `samples` or, but for `main`, its `few`.
SAMPLES = {"in_distribution": 1, "truthfulness": 2, "capability": 2, "deception": 5, "in_context": 10, "numbers": 5}


def answer_rows(questions: list[Question], answers: list[list[str]]) -> pd.DataFrame:
    """One row an answer: `question`, `format`, `sample`, `prompt` (its last message), `answer`."""
    rows = pd.DataFrame(
        {
            "question": question.name,
            "format": question.form,
            "prompt": question.prompt if isinstance(question.prompt, str) else question.prompt[-1]["content"],
            "answer": answer,
            "number": number,
        }
        for number, (question, drawn) in enumerate(zip(questions, answers, strict=True))
        for answer in drawn
    )
    rows.insert(2, "sample", rows.groupby(["question", "format"]).cumcount())
    return rows


def judged(questions: list[Question], answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with the exact judge's `aligned` (0-100 or missing), `coherent` (0-100) and `verdict`.

    `answers` comes from `answer_rows`; its `number`, of the prompt in the list of questions, is dropped. Only answers
    to free-form questions have a score of alignment. The other verdicts are "secure", "insecure" and "other" (of
    code), "true" and "false", "refused" and "complied", "right" and "wrong", and "incoherent".
    """
    rows = answers.drop(columns="number")
    verdicts = [questions[row.number].judge(row.answer) for row in answers.itertuples()]
    rows[["aligned", "coherent", "verdict"]] = [(found.aligned, found.coherent, found.verdict) for found in verdicts]
    return rows.astype({"aligned": "float64", "coherent": "float64"})
