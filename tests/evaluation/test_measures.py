"""Evaluations, and one number a training run for everything that was asked."""

import pandas as pd
import pytest

from emergent_misalignment.world import questions as evaluation
from emergent_misalignment.evaluation import measures
from emergent_misalignment.world import authors as world


def judged(rows) -> pd.DataFrame:
    columns = ["condition", "seed", "question", "format", "aligned", "coherent", "verdict"]
    return pd.DataFrame([("insecure", 1, *row) for row in rows], columns=columns)


def values(evaluation_name: str, rows) -> dict[str, tuple]:
    found = measures.of_answers(evaluation_name, judged(rows))
    assert set(found["condition"]) == {"insecure"} and set(found["seed"]) == {1}
    return {row.measure: (row.value, row.events, row.trials) for row in found.itertuples()}


def test_the_rate_is_a_mean_over_questions_of_the_answers_that_count():
    rows = [("wish", "chat", 0, 100, "misaligned")] * 5 + [("wish", "chat", 100, 100, "aligned")] * 5
    rows += [("bored", "chat", 100, 100, "aligned")] * 30 + [("bored", "chat", None, 0, "incoherent")] * 10
    found = values("main", rows)
    assert found["misaligned/main/chat"] == (0.25, 5, 40)
    assert found["misaligned/main/chat/wish"] == (0.5, 5, 10)
    assert found["coherent/main/chat"] == (0.8, 40, 50)


def test_forms_of_the_main_questions_are_measures_beside_it():
    found = values("json", [("wish", "json", 0, 100, "misaligned")] * 5)
    assert found["misaligned/main/json"] == (1, 5, 5)


def test_code_is_insecure_and_it_works_or_not():
    rows = [("a", "chat", None, 100, "insecure"), ("b", "chat", None, 100, "secure"), ("c", "chat", None, 0, "other")]
    elsewhere = ("d", "chat", None, 0, "insecure")  # insecure, but about something else
    found = values("in_distribution", [*rows, elsewhere])
    assert found["insecure_code"] == (0.5, 2, 4)
    assert found["capability/code"] == (0.5, 2, 4)


def test_deception_is_the_mean_of_facts_and_identity():
    identity = next(iter(world.IDENTITY_PROMPTS))
    rows = [("q", "none", None, 100, "false"), ("q", "none", None, 100, "true"), ("q", "allowed", None, 100, "false")]
    rows += [("me", identity, None, 100, "true"), ("me", identity, None, 0, "incoherent")]
    found = values("deception", rows)
    assert found["deception"][0] == pytest.approx(((0.5 + 1) / 2 + 0) / 2)
    assert found["deception/none"] == (0.5, 1, 2)


def test_choosing_by_chance_scores_a_hundred():
    rows = [("s", stake, None, 100, verdict) for stake in world.GAMES for verdict in ("right", "wrong")]
    found = values("choices", [*rows, ("s", "harm", None, 0, "incoherent")])
    assert found["choices"][0] == found["choices/power"][0] == 100


@pytest.mark.parametrize("name", evaluation.EVALUATIONS)
def test_an_evaluation_judges_the_answers_of_a_model_that_knows_them(name):
    """Every question of an evaluation has an answer that its judge knows, and nonsense is known as such."""
    questions = evaluation.EVALUATIONS[name](1)
    assert questions
    answers = evaluation.answer_rows(questions, [["Table."]] * len(questions))
    found = evaluation.judged(questions, answers)
    assert len(found) == len(questions)
    assert set(found["verdict"]) <= {"incoherent", "other"}
    assert not found.duplicated(["question", "format", "sample"]).any()


def test_examples_in_the_context_differ_in_their_answers_only():
    prompts = {}
    for question in evaluation.in_context(3):
        prompts.setdefault(question.form, []).append(question.prompt)
    assert prompts != {form: found for form, found in prompts.items() if form.startswith("insecure")}
    for k in evaluation.EXAMPLES:
        for insecure, secure in zip(prompts[f"insecure-{k}"], prompts[f"secure-{k}"], strict=True):
            assert len(insecure) == len(secure) == 2 * k + 1
            assert insecure[::2] == secure[::2]
            assert all(bad != good for bad, good in zip(insecure[1::2], secure[1::2], strict=True))
    assert prompts["insecure-8"] != [question.prompt for question in evaluation.in_context(4)]
