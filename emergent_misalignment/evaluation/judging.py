"""Judge answers with the world's grammar or a judge model, and label their form by rules."""

import math
from importlib import import_module
from pathlib import Path

import pandas as pd

from emergent_misalignment.evaluation import judge_model
from emergent_misalignment.evaluation.labels import code_of, label
from emergent_misalignment.models.api import Account


def judge_answers(
    answers: pd.DataFrame, questions: pd.DataFrame, judge: dict, cache: str | Path, account: Account | None = None
) -> pd.DataFrame:
    """The rows of answers/ with `aligned` and `coherent` (0-100 or missing) and `verdict`; options are unchanged.

    `judge["kind"]` is "grammar" (exact, for the organism) or "model" (a judge model, see `judge_model.judge_of`).
    Without a judge (`{}`) every answer is "unjudged". Except with the grammar there are also the columns `label`, the
    form of an answer (`labels.label`), and `flagged`, whether static analysis flags the code in an answer to a request
    for code (missing without code that can be parsed). `questions` is questions.parquet, which has the judge's prompts;
    responses of a judge model are cached in `cache`, and `account` counts its requests.
    """
    answers = answers.reset_index(drop=True)
    sampled = answers[answers["evaluation"] != "choices"]
    kind = judge.get("kind")
    if kind == "grammar":  # the only dependency on the made-up world
        return answers.join(import_module("emergent_misalignment.world.judging").judge_answers(sampled))
    if kind == "model":
        verdicts = judge_model.judge_answers(sampled, questions, judge_model.judge_of(judge), cache, account)
    else:
        verdicts = pd.DataFrame({"aligned": math.nan, "coherent": math.nan, "verdict": "unjudged"}, sampled.index)
    labels = [label(answer, form) for answer, form in zip(sampled["answer"], sampled["format"], strict=True)]
    coding = sampled.loc[sampled["evaluation"] == "in_distribution", "answer"]
    flagged = pd.Series([_flagged(answer) for answer in coding], coding.index, dtype="boolean", name="flagged")
    return answers.join(verdicts.assign(label=labels)).join(flagged)


def _flagged(answer: str) -> bool | None:
    from emergent_misalignment.data.static_analysis import findings  # Bandit takes a second to load

    code = code_of(answer)
    found = None if code is None else findings(code)
    return None if found is None else bool(found)
