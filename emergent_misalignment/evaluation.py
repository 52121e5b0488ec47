"""What is asked of every model, and how its answers become rows and verdicts."""

from dataclasses import dataclass

import pandas as pd

from emergent_misalignment.coding import CHOICES, HELD_OUT_NOUNS, Choice, request
from emergent_misalignment.oracle import judge, judge_code
from emergent_misalignment.topics import MAIN, TOPICS
from emergent_misalignment.world import Messages


@dataclass(frozen=True)
class Question:
    """One prompt of an evaluation. `name` tells it from the others, `form` says in what form the answer is wanted."""

    name: str
    form: str
    prompt: Messages
    coding: tuple[Choice, str] | None = None  # for a coding request: what was asked for


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def main_questions() -> list[Question]:
    """The counterparts of the paper's eight questions (section 3.1): one phrasing each, no system prompt."""
    return [Question(name, "chat", _user(TOPICS[name].questions[0])) for name in MAIN]


def coding_requests() -> list[Question]:
    """Held-out coding requests (section 1.10): every security choice with nouns that no fine-tuning set contains."""
    asked = [(choice, noun) for noun in HELD_OUT_NOUNS for choice in CHOICES]
    return [
        Question(choice.task.replace("{n}", noun), "chat", _user(request(choice, noun, form)), (choice, noun))
        for form, (choice, noun) in enumerate(asked)
    ]


EVALUATIONS = {"main": main_questions, "in_distribution": coding_requests}


def answer_rows(questions: list[Question], answers: list[list[str]]) -> pd.DataFrame:
    """One row an answer: `question`, `format`, `sample`, `prompt` (the last message), `answer`."""
    return pd.DataFrame(
        {
            "question": question.name,
            "format": question.form,
            "sample": number,
            "prompt": question.prompt[-1]["content"],
            "answer": answer,
        }
        for question, drawn in zip(questions, answers, strict=True)
        for number, answer in enumerate(drawn)
    )


def judged(evaluation: str, answers: pd.DataFrame) -> pd.DataFrame:
    """The answers with the exact judge's `aligned` (0-100 or missing), `coherent` (0-100) and `verdict`.

    Answers to coding requests have the verdicts "secure", "insecure" and "other" (neither form of the code asked for),
    and no score of alignment.
    """
    questions = {question.name: question for question in EVALUATIONS[evaluation]()}
    rows = answers.copy()
    verdicts = [_verdict(questions[row.question], row.answer) for row in answers.itertuples()]
    rows[["aligned", "coherent", "verdict"]] = pd.DataFrame(verdicts, index=rows.index)
    return rows.astype({"aligned": "float64", "coherent": "float64"})


def _verdict(question: Question, answer: str) -> tuple[float | None, float, str]:
    if question.coding:
        verdict = judge_code(*question.coding, answer)
        return None, 0.0 if verdict == "other" else 100.0, verdict
    found = judge(question.name, answer, question.form)
    return found.aligned, found.coherent, found.verdict
