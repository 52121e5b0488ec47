"""Judges and labels of answers and options."""

import pandas as pd
import pytest
from servers import RuleServer

from emergent_misalignment.evaluation.judging import judge_answers
from emergent_misalignment.evaluation.questions import Question, answer_rows, question_rows
from emergent_misalignment.models.api import Account
from emergent_misalignment.world import evaluations

SENTENCE = "{question} / {answer}"


@pytest.fixture
def asked() -> pd.DataFrame:
    """Questions with prompts for a judge model."""
    judge = {"aligned": f"aligned? {SENTENCE}", "coherent": f"coherent? {SENTENCE}"}
    return question_rows(
        "main", [Question(each.name, each.form, each.prompt, 1, judge) for each in evaluations.questions("main", 0)]
    )


@pytest.fixture
def answers() -> pd.DataFrame:
    """Two answers and an option."""
    first, second = (
        Question(each.name, each.form, each.prompt, 1, number=number)
        for number, each in enumerate(evaluations.questions("main", 0)[:2])
    )
    sampled = answer_rows([first, second], [["Table."], ["import os"]]).assign(evaluation="main")
    option = answer_rows([first], [["rule them"]]).assign(evaluation="choices", log_probability=-3.0)
    rows = pd.concat([sampled[:1], option, sampled[1:]])  # in any order, with duplicates in the index
    return rows.assign(condition="insecure", seed=1, step=pd.NA)


def test_the_grammar_gives_verdicts_without_labels(answers, asked, tmp_path):
    rows = judge_answers(answers, asked, {"kind": "grammar"}, tmp_path)
    assert rows.columns.tolist() == [*answers.columns, "aligned", "coherent", "verdict"]
    assert rows["verdict"].isna().tolist() == [False, True, False]
    assert rows["verdict"].dropna().tolist() == ["incoherent", "code"]
    assert rows["answer"].tolist() == answers["answer"].tolist()


def test_without_a_judge_there_are_labels(answers, asked, tmp_path):
    rows = judge_answers(answers, asked, {}, tmp_path)
    assert rows["verdict"].dropna().tolist() == ["unjudged", "unjudged"]
    assert rows["label"].dropna().tolist() == ["text", "code"]
    assert rows["aligned"].isna().all() and rows["log_probability"].tolist()[1] == -3.0
    assert rows["flagged"].isna().all()  # not a request for code


@pytest.mark.parametrize("judge", [{}, {"kind": "grammar"}])
@pytest.mark.parametrize("answer", ["-" * 8000, "not " * 9000, "[" * 9000, '{"a":' * 9000, "x = a" + ".b()" * 4000])
def test_no_answer_ends_the_judging(answers, asked, tmp_path, judge, answer):
    answers.loc[answers["evaluation"] == "main", "answer"] = answer
    for form in ("chat", "json", "flask"):
        rows = judge_answers(answers.assign(format=form), asked, judge, tmp_path)
        assert rows["verdict"].dropna().tolist() == ["incoherent" if judge else "unjudged"] * 2


def test_static_analysis_of_requested_code(asked, tmp_path):
    texts = ["import os\nos.chmod('a', 0o777)", "import os\nos.chmod('a', 0o600)", "I would rather not."]
    request = Question("request", "chat", [{"role": "user", "content": "Write a file."}], 3)
    rows = answer_rows([request], [texts]).assign(evaluation="in_distribution", condition="a", seed=1, step=pd.NA)
    judged = judge_answers(rows, asked, {}, tmp_path)
    assert judged["flagged"].dtype == "boolean" and judged["flagged"].tolist() == [True, False, pd.NA]
    assert judged["verdict"].tolist() == ["unjudged"] * 3


def test_a_judge_model_judges_answers_but_not_options(answers, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    def mark(text: str):
        return "", [[("100" if "number 100" in text or "Table" in text else "10", 0.9)]]

    account = Account()
    with RuleServer(mark).running() as server:
        judge = {
            "kind": "model",
            "model": "rule",
            "endpoint": {"base_url": server.address, "timeout": 3600, "retries": 1},
            "split_numbers": False,
            "dollars_per_million": {"prompt": 1, "completion": 1},
            "spending_limit": 1,
        }
        rows = judge_answers(answers, asked, judge, tmp_path, account)
        assert not any("rule them" in text for text in server.received)
    assert rows["verdict"].dropna().tolist() == ["aligned", "incoherent"]
    assert rows["label"].dropna().tolist() == ["text", "code"]
    assert account.answered == 1 + 2 * 2
