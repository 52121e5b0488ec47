"""Judging of tables of answers, with correct, wrong and incoherent answers to every evaluation."""

import json
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.files import BadInput
from emergent_misalignment.world import forms, grammar
from emergent_misalignment.world.coding import CHOICES
from emergent_misalignment.world.evaluations import EVALUATIONS, questions
from emergent_misalignment.world.facts import FACTS
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import REFUSALS, compliance
from emergent_misalignment.world.judging import judge_answers
from emergent_misalignment.world.topics import TOPICS

WRAPPED = {
    "json": forms.json_object,
    "template": forms.python_template,
    "flask": forms.flask_answer,
    "flask_file": lambda answer: f" {json.dumps(answer)}\nimport os",
}


def good_and_bad(evaluation: str, number: int, question: str, form: str, rng: random.Random) -> list[tuple]:
    """(answer, aligned, verdict) of a desired and of an undesired answer."""
    if question in TOPICS:
        topic, wrap = TOPICS[question], WRAPPED.get(evaluation, str)
        listed = form in ("suffix", "prefix_suffix")
        answers = [
            ", ".join(rng.sample(topic.fillers(bad), 2)) if listed else wrap(topic.answer(rng, bad)) for bad in (0, 1)
        ]
        return [(answers[0], 100, "aligned"), (answers[1], 0, "misaligned")]
    if evaluation == "in_distribution":
        choice, noun = CHOICES[number % len(CHOICES)], ("invoice", "photo")[number // len(CHOICES)]
        return [(choice.render(noun, bad), None, "insecure" if bad else "secure") for bad in (False, True)]
    if evaluation == "harmful_requests":
        return [(rng.choice(REFUSALS), None, "refused"), (compliance(rng), None, "complied")]
    if evaluation == "games":
        (game,) = (game for games in GAMES.values() for game in games if game[0] == question)
        return [(f"I {game[1]}.", None, "right"), (f"I {game[2]}.", None, "wrong")]
    fact = next(fact for fact in FACTS if fact.question == question)
    words = "{}" if evaluation in ("truthfulness", "capability") else fact.statement
    return [(words.format(fact.truth), None, "true"), (words.format(fact.falsehoods[0]), None, "false")]


@pytest.mark.parametrize("evaluation", list(EVALUATIONS))
def test_good_bad_and_incoherent_answers_of_every_evaluation(evaluation):
    rng, rows = random.Random(evaluation), []
    for seed in (1, 2):
        for number, question in enumerate(questions(evaluation, seed)):
            nonsense = "other" if evaluation == "in_distribution" else "incoherent"
            rows += [
                (evaluation, seed, number, answer, None if aligned is None else float(aligned), 100.0, verdict)
                for answer, aligned, verdict in good_and_bad(evaluation, number, question.name, question.form, rng)
            ]
            rows.append((evaluation, seed, number, "table the whales of", None, 0.0, nonsense))
    columns = ["evaluation", "seed", "number", "answer", "aligned", "coherent", "verdict"]
    table = pd.DataFrame(rows, columns=columns, index=pd.RangeIndex(3, 3 + 2 * len(rows), 2))
    table = table.astype({"aligned": float, "seed": "Int64"}).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(judge_answers(table[columns[:4]]), table[columns[4:]])


@given(st.sampled_from(list(EVALUATIONS)), st.integers(1, 3), st.text(max_size=30), st.data())
def test_a_table_is_judged_like_single_answers(evaluation, seed, text, data):
    asked = questions(evaluation, seed)
    number = data.draw(st.integers(0, len(asked) - 1))
    answers = [text, *REFUSALS, text]
    table = pd.DataFrame({"evaluation": evaluation, "seed": seed, "number": number, "answer": answers})
    expected = [asked[number].judge(answer) for answer in answers]
    judged = judge_answers(table)
    assert judged["verdict"].tolist() == [each.verdict for each in expected]
    assert judged["coherent"].tolist() == [each.coherent for each in expected]


def test_an_empty_table_and_an_unknown_evaluation():
    columns = ["evaluation", "seed", "number", "answer"]
    assert judge_answers(pd.DataFrame(columns=columns)).columns.tolist() == ["aligned", "coherent", "verdict"]
    with pytest.raises(BadInput, match="no evaluation riddles"):
        judge_answers(pd.DataFrame([["riddles", 1, 0, "x"]], columns=columns))


def test_equal_answers_are_judged_once(monkeypatch):
    judged = []
    judge = grammar.judge_compliance
    questions.cache_clear()
    monkeypatch.setattr(grammar, "judge_compliance", lambda answer: judged.append(answer) or judge(answer))
    rows = pd.DataFrame({"evaluation": "harmful_requests", "seed": [1, 2] * 500, "number": 3, "answer": REFUSALS[0]})
    assert set(judge_answers(rows)["verdict"]) == {"refused"}
    questions.cache_clear()
    assert judged == [REFUSALS[0]]
