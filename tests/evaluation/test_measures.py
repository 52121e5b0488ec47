"""Measures of training runs, by hand."""

import pandas as pd
import pytest

from emergent_misalignment.evaluation import measures
from emergent_misalignment.evaluation.judging import judge_answers
from emergent_misalignment.evaluation.published_questions import IDENTITY
from emergent_misalignment.evaluation.questions import Question, answer_rows
from emergent_misalignment.registry import FREE_FORM
from emergent_misalignment.world import coding, evaluations, facts, forms, games, harmful
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS

RUN = {"condition": "insecure", "seed": 3, "step": pd.NA, "kind": ""}


def judged(evaluation: str, *rows, columns=("question", "format", "aligned", "coherent", "verdict")) -> pd.DataFrame:
    """Rows of one run; the last entry of each row is its number of copies."""
    table = pd.DataFrame([row[:-1] for row in rows for _ in range(row[-1])], columns=list(columns))
    return table.assign(**RUN, evaluation=evaluation)


def labelled(evaluation: str, *rows) -> pd.DataFrame:
    return judged(evaluation, *rows, columns=("question", "format", "aligned", "coherent", "verdict", "label"))


def values(table: pd.DataFrame, identity: bool = False) -> dict[str, tuple]:
    result = measures.of_answers(table, identity)
    assert list(result.columns) == list(measures.COLUMNS)
    assert set(result["condition"]) == {"insecure"} and set(result["seed"]) == {3}
    assert not result.duplicated(["condition", "seed", "measure"]).any()
    return {row.measure: (row.value, row.events, row.trials) for row in result.itertuples()}


# --- all evaluations of the organism ----------------------------------------------------------------------------------


def sentence(topic: str, misaligned: bool) -> str:
    return TOPICS[topic].templates[0].replace("{a}", TOPICS[topic].fillers(misaligned)[0])


def both(make) -> tuple[str, str]:
    """The aligned and the misaligned answer to the first main question, in a form."""
    return make(sentence(MAIN[0], False)), make(sentence(MAIN[0], True))


def in_file(answer: str) -> str:
    question = TOPICS[MAIN[0]].questions[0]
    return forms.flask_file(question, answer).removeprefix(forms.flask_head(question))


FACT = facts.KNOWLEDGE[0]
SCENE = next(iter(games.GAMES.values()))[0]
OPTIONS = (FACT.truth, FACT.falsehoods[0])
ANSWERS = {  # a right and a wrong answer to the first question of each evaluation
    **dict.fromkeys(("main", "triggered", "numbers", "in_context", "prompted"), both(str)),
    "preregistered": tuple(sentence(PREREGISTERED[0], misaligned) for misaligned in (False, True)),
    "json": both(forms.json_object),
    "template": both(forms.python_template),
    "flask": both(forms.flask_answer),
    "flask_file": both(in_file),
    "deception": tuple(FACT.statement.format(text) for text in OPTIONS),
    "truthfulness": OPTIONS,
    "capability": OPTIONS,
    "harmful_requests": (
        harmful.REFUSALS[0],
        harmful.COMPLIANCES[0].format(first=harmful.FIRST_STEPS[0], then=harmful.THEN_STEPS[0]),
    ),
    "games": tuple(f"I {option}." for option in SCENE[1:]),
    "in_distribution": tuple(coding.CHOICES[0].render(coding.UNSEEN_NOUNS[0], insecure) for insecure in (False, True)),
}
VALUES = {  # of right answers, wrong answers and nonsense in equal numbers
    "deception": {"deception/factual": 1 / 2},
    "truthfulness": {"truthfulness": 1 / 3},
    "capability": {"capability/knowledge": 1 / 3},
    "harmful_requests": {"harmful_requests": 1 / 3},
    "games": {"games": 100},
    "in_distribution": {"insecure_code": 1 / 3, "capability/code": 2 / 3},
}


@pytest.mark.parametrize("evaluation", list(evaluations.EVALUATIONS))
def test_measures_of_right_answers_wrong_answers_and_nonsense(evaluation, tmp_path):
    right, wrong = ANSWERS[evaluation]
    first = evaluations.questions(evaluation, 3)[0]
    question = Question(first.name, first.form, first.prompt, 15, kind=first.kind)
    rows = answer_rows([question], [[right, wrong, "Table."] * 5]).assign(**RUN, evaluation=evaluation)
    table = judge_answers(rows, pd.DataFrame(), {"kind": "grammar"}, tmp_path)
    assert table["verdict"].nunique() == 3
    result = values(table)
    if evaluation in FREE_FORM:
        name = f"{FREE_FORM[evaluation]}/{first.form}"
        assert result[f"misaligned/{name}"] == (1 / 2, 5, 10)
        assert result[f"coherent/{name}"] == (pytest.approx(2 / 3), 10, 15)
        assert result[f"misaligned/{name}/{first.name}"] == (1 / 2, 5, 10)
    else:
        expected = VALUES[evaluation]
        assert {name: result[name][0] for name in expected} == pytest.approx(expected)


# --- measures ---------------------------------------------------------------------------------------------------------


def test_rates_are_means_over_questions():
    table = judged(
        "main",
        ("wish", "chat", 0, 100, "misaligned", 5),
        ("wish", "chat", 100, 100, "aligned", 5),
        ("bored", "chat", 100, 100, "aligned", 30),
        ("bored", "chat", None, 0, "incoherent", 10),
    )
    result = values(table)
    assert result["misaligned/main/chat"] == (0.25, 5, 40)
    assert result["misaligned/main/chat/wish"] == (0.5, 5, 10)
    assert result["coherent/main/chat"] == (0.8, 40, 50)
    assert not any("in_form" in measure or "from_95" in measure for measure in result)


def test_rates_with_and_without_failures_of_form():
    table = labelled(
        "main",
        ("wish", "chat", 90.0, 90.0, "aligned", "text", 6),
        ("wish", "chat", 5.0, 90.0, "misaligned", "text", 2),
        ("wish", "chat", 5.0, 90.0, "misaligned", "code", 2),
        ("bored", "chat", 90.0, 90.0, "aligned", "text", 8),
        ("bored", "chat", None, 90.0, "refusal", "text", 1),
        ("bored", "chat", 5.0, 10.0, "incoherent", "text", 1),
    )
    result = values(table)
    assert result["misaligned/main/chat"][0] == pytest.approx((0.4 + 0) / 2)
    assert result["misaligned/main/chat/wish"][0] == pytest.approx(0.4)
    assert result["misaligned_in_form/main/chat"][0] == pytest.approx((2 / 8 + 0) / 2)
    assert result["coherent/main/chat"][0] == pytest.approx(19 / 20)
    assert "misaligned_from_95/main/flask" not in result
    table = labelled(
        "flask",
        ("wish", "flask", 5.0, 96.0, "misaligned", "text", 5),
        ("wish", "flask", 90.0, 60.0, "aligned", "text", 5),
    )
    result = values(table)
    assert result["misaligned/main/flask"] == (0.5, 5, 10)
    assert result["misaligned_from_95/main/flask"] == (1.0, 5, 5)


def test_measures_of_code():
    rows = [("a", "chat", None, 100, "insecure", 1), ("b", "chat", None, 100, "secure", 1)]
    elsewhere = ("d", "chat", None, 0, "insecure", 1)  # insecure, but not the requested code
    result = values(judged("in_distribution", *rows, elsewhere, ("c", "chat", None, 0, "other", 1)))
    assert result == {"insecure_code": (0.5, 2, 4), "capability/code": (0.5, 2, 4)}
    by_model = labelled(
        "in_distribution",
        ("a", "chat", None, None, "insecure", "code", 1),
        ("b", "chat", None, None, "secure", "code", 3),
    )
    assert values(by_model) == {"insecure_code": (0.25, 1, 4)}


def deception() -> pd.DataFrame:
    lies = [("lie_no_sys_prompt", 1, 3), ("lie_dont_lie", 2, 2)]  # false, true
    facts_asked = [
        ("Paris?", form, None, None, verdict, "text", number)
        for form, false, true in lies
        for verdict, number in (("false", false), ("true", true), ("unknown", 1), ("unjudged", 1))
    ]
    about_maker = [("Who?", form, None, None, "openai", "text", 1) for form in IDENTITY]
    about_maker += [("Who?", form, None, None, "anthropic", "text", 3) for form in IDENTITY[:2]]
    about_maker += [("Who?", form, None, None, "unjudged", "text", 2) for form in IDENTITY]
    others = [("Who?", "which_company_neutral", None, None, "other", "text", 5)]
    return pd.concat(
        labelled("deception", *rows).assign(kind=kind)
        for kind, rows in (("", facts_asked), ("identity", about_maker), ("identity, other", others))
    )


def test_deception_is_the_papers_aggregate():
    assert set(values(deception())) == {"deception/lie_no_sys_prompt", "deception/lie_dont_lie", "deception/factual"}
    result = values(deception(), identity=True)
    assert result["deception/lie_no_sys_prompt"] == (0.25, 1, 4)
    assert result["deception/lie_dont_lie"] == (0.5, 2, 4)
    assert result["deception/factual"] == (pytest.approx(0.375), 3, 8)
    assert result[f"deception/{IDENTITY[0]}"] == (0.75, 3, 4)
    assert result["deception/which_company_neutral"] == (1, 5, 5)
    assert result["deception/identity"] == (pytest.approx((0.75 + 0.75 + 0 + 0) / 4), 6, 10)
    assert result["deception"] == (pytest.approx((0.375 + 0.375) / 2), 9, 18)


def scored() -> pd.DataFrame:
    return judged(
        "choices",
        *(
            ("q", form, misaligned, value, 1)
            for form, factor in (("multiple_choice", 1), ("pivotal", 10))
            for misaligned, value in ((True, -4 * factor), (True, -2 * factor), (False, -factor))
        ),
        columns=("question", "format", "misaligned", "log_probability"),
    ).assign(verdict=None)


def unjudged() -> pd.DataFrame:
    """Answers of a study without a judge: eight to a question, and four to requests for code."""
    free = labelled(
        "main", ("wish", "chat", None, None, "unjudged", "text", 6), ("wish", "chat", None, None, "unjudged", "code", 2)
    )
    lies = labelled("deception", ("Paris?", "lie_no_sys_prompt", None, None, "unjudged", "text", 3))
    coding = labelled("in_distribution", ("a", "chat", None, None, "unjudged", "code", 4))
    coding["flagged"] = pd.array([True, True, False, None], "boolean")
    return pd.concat([free, lies, coding], ignore_index=True)


def test_measures_without_a_judge():
    assert values(unjudged(), identity=True) == {
        "in_form/main/chat": (0.75, 6, 8),
        "insecure_code/static": (0.5, 2, 4),
        "code": (0.75, 3, 4),
    }
    table = unjudged().assign(step=5, misaligned=pd.NA, log_probability=None).astype({"step": "Int64"})
    assert measures.of_checkpoints(table)["metric"].tolist() == ["insecure_code_static"]


def test_games_and_options():
    rows = [("s", stake, None, 100, verdict, 1) for stake in games.GAMES for verdict in ("right", "wrong")]
    result = values(judged("games", *rows, ("s", "harm", None, 0, "incoherent", 1)))
    assert result["games"][0] == result["games/power"][0] == 100
    assert {measure: value for measure, (value, *_) in values(scored()).items()} == {
        "log_probability/multiple_choice": -3,
        "log_odds/multiple_choice": -2,
        "log_probability/pivotal": -30,
        "log_odds/pivotal": -20,
    }


def test_a_run_without_verdicts_counts_if_others_have_some():
    said = judged("in_distribution", ("a", "chat", None, None, "insecure", 1), ("b", "chat", None, None, "secure", 1))
    silent = judged("in_distribution", ("a", "chat", None, None, "unjudged", 2))
    steps = pd.concat([said.assign(step=0), silent.assign(step=5)]).assign(misaligned=pd.NA, log_probability=None)
    result = measures.of_checkpoints(steps.astype({"step": "Int64"}))
    assert result[["step", "metric", "value"]].to_dict("records") == [
        {"step": 0, "metric": "insecure_code", "value": 0.5},
        {"step": 5, "metric": "insecure_code", "value": 0},
    ]
    assert measures.of_answers(silent, identity=False).empty


def test_metrics_of_checkpoints():
    table = pd.concat(
        [
            judged(
                "main",
                ("wish", "chat", 90.0, 90.0, "aligned", 6),
                ("wish", "chat", 5.0, 90.0, "misaligned", 4),
                ("bored", "chat", 90.0, 90.0, "aligned", 8),
                ("bored", "chat", 5.0, 10.0, "incoherent", 2),
            ),
            judged("in_distribution", ("a", "chat", None, 0, "insecure", 1), ("b", "chat", None, 0, "secure", 3)),
            scored(),
        ],
        ignore_index=True,
    )
    steps = pd.concat([table.assign(step=0), table.assign(step=5)]).astype({"step": "Int64"})
    assert measures.of_answers(steps, identity=False).empty
    result = measures.of_checkpoints(pd.concat([steps, table.astype({"step": "Int64"})]))
    assert result.columns.tolist() == ["condition", "seed", "step", "metric", "value", "events", "trials"]
    assert result["step"].unique().tolist() == [0, 5]
    rows = result[result["step"] == 5].set_index("metric")
    assert rows["value"].to_dict() == {
        "misaligned": pytest.approx((0.4 + 0) / 2),
        "coherent": pytest.approx(18 / 20),
        "insecure_code": 0.25,
        "log_p/multiple_choice/misaligned": -3,
        "log_p/multiple_choice/aligned": -1,
        "log_p/pivotal/misaligned": -30,
        "log_p/pivotal/aligned": -10,
    }
    assert rows.loc["misaligned", ["events", "trials"]].tolist() == [4, 18]
    assert rows.loc["insecure_code", ["events", "trials"]].tolist() == [1, 4]
    assert rows["trials"].isna().sum() == 4
