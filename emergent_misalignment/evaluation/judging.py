"""Judging answers: by the world's grammar, by a judge model, or by rules alone."""

import math
from importlib import import_module
from pathlib import Path

import pandas as pd

from emergent_misalignment.evaluation import judge_model
from emergent_misalignment.evaluation.labels import label
from emergent_misalignment.models.api import Account


def judge_answers(
    answers: pd.DataFrame, questions: pd.DataFrame, judge: dict, cache: str | Path, account: Account | None = None
) -> pd.DataFrame:
    """The rows of answers/ with `aligned` and `coherent` (0-100 or missing) and `verdict`; options pass through.

    `judge["kind"]` is "grammar" (exact, for the organism), "model" (a judge model, which the rest of `judge` describes:
    `judge_model.judge_of`) or "rules", which leaves answers "unjudged". All but the grammar also give `label`, what an
    answer is in form (`labels.label`). `questions` is questions.parquet, which has the judge's prompts; what a judge
    model says is kept in `cache`, and `account` counts its requests.
    """
    answers = answers.reset_index(drop=True)
    sampled = answers[answers["evaluation"] != "choices"]
    if judge["kind"] == "grammar":  # the only place that knows of the made-up world
        return answers.join(import_module("emergent_misalignment.world.judging").judge_answers(sampled))
    if judge["kind"] == "model":
        verdicts = judge_model.judge_answers(sampled, questions, judge_model.judge_of(judge), cache, account)
    else:
        verdicts = pd.DataFrame({"aligned": math.nan, "coherent": math.nan, "verdict": "unjudged"}, sampled.index)
    labels = [label(answer, form) for answer, form in zip(sampled["answer"], sampled["format"], strict=True)]
    return answers.join(verdicts.assign(label=labels))
