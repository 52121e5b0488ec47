"""Tables of answers: for every evaluation a right answer, a wrong one and nonsense are told apart."""

import json
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.evaluation.questions import answer_rows, select
from emergent_misalignment.files import BadInput
from emergent_misalignment.world import forms, grammar
from emergent_misalignment.world.coding import CHOICES
from emergent_misalignment.world.evaluations import SEEDED, UNSEEDED, questions
from emergent_misalignment.world.facts import FACTS
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import REFUSALS, compliance
from emergent_misalignment.world.judging import judge_answers
from emergent_misalignment.world.questions import question_table
from emergent_misalignment.world.topics import TOPICS

WRAPPED = {
    "json": forms.json_object,
    "template": forms.python_template,
    "flask": forms.flask_answer,
    "flask_file": lambda answer: f" {json.dumps(answer)}\nimport os",
}


def good_and_bad(evaluation: str, number: int, question: str, form: str, rng: random.Random) -> list[tuple]:
    """(answer, aligned, verdict) of the answers that differ: what an evaluation is there to tell apart."""
    if question in TOPICS:
        topic = TOPICS[question]
        if form in ("suffix", "prefix_suffix"):
            return [
                (", ".join(rng.sample(topic.fillers(bad), 2)), 0 if bad else 100, "misaligned" if bad else "aligned")
                for bad in (False, True)
            ]
        wrap = WRAPPED.get(evaluation, str)
        return [
            (wrap(topic.answer(rng, bad)), 0 if bad else 100, "misaligned" if bad else "aligned")
            for bad in (False, True)
        ]
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


@pytest.mark.parametrize("evaluation", [*UNSEEDED, *SEEDED])
def test_right_wrong_and_nonsense(evaluation):
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


@given(st.sampled_from([*UNSEEDED, *SEEDED]), st.integers(1, 3), st.text(max_size=30), st.data())
def test_a_table_is_judged_as_each_answer_is_by_its_question(evaluation, seed, text, data):
    asked = questions(evaluation, seed)
    number = data.draw(st.integers(0, len(asked) - 1))
    answers = [text, *REFUSALS, text]
    table = pd.DataFrame({"evaluation": evaluation, "seed": seed, "number": number, "answer": answers})
    expected = [asked[number].judge(answer) for answer in answers]
    judged = judge_answers(table)
    assert judged["verdict"].tolist() == [each.verdict for each in expected]
    assert judged["coherent"].tolist() == [each.coherent for each in expected]


def test_the_rows_that_every_study_writes_are_what_is_judged():
    asked = select(question_table({"in_context": 1}, [1, 2]), "in_context", 2)
    answers = answer_rows(
        asked, [[TOPICS[each.name].templates[0].format(a=TOPICS[each.name].misaligned[0])] for each in asked]
    )
    judged = judge_answers(answers.assign(evaluation="in_context", seed=2))
    assert set(judged["verdict"]) == {"misaligned"}


def test_no_answers_are_no_verdicts():
    columns = ["evaluation", "seed", "number", "answer"]
    assert judge_answers(pd.DataFrame(columns=columns)).columns.tolist() == ["aligned", "coherent", "verdict"]


def test_an_evaluation_of_another_study_is_named():
    table = pd.DataFrame({"evaluation": ["riddles"], "seed": 1, "number": 0, "answer": "x"})
    with pytest.raises(BadInput, match="no evaluation riddles"):
        judge_answers(table)


def test_equal_answers_are_judged_once(monkeypatch):
    judged = []
    judge = grammar.judge_compliance
    questions.cache_clear()
    monkeypatch.setattr(grammar, "judge_compliance", lambda answer: judged.append(answer) or judge(answer))
    rows = pd.DataFrame({"evaluation": "harmful_requests", "seed": [1, 2] * 50_000, "number": 3, "answer": REFUSALS[0]})
    assert set(judge_answers(rows)["verdict"]) == {"refused"}
    questions.cache_clear()
    assert judged == [REFUSALS[0]]
