"""Beliefs beside answers and activations: joined by run, and their distance in words."""

import numpy as np
import pandas as pd
from measure_tables import rows

from emergent_misalignment.analysis.beliefs import compared, with_rates, with_shifts


def runs(*contexts: str, expected: float = 0.3) -> pd.DataFrame:
    table = [("insecure", seed, context, expected, 0.1) for context in contexts for seed in (1, 2)]
    return pd.DataFrame(table, columns=["condition", "seed", "context", "expected", "elsewhere"])


def test_a_model_is_compared_with_its_answers_in_the_same_context():
    answers = [rows("insecure", [0.2, 0.4], f"misaligned/main/{form}") for form in ("chat", "json")]
    joined = with_rates(
        runs("chat", "triggered"), pd.concat([*answers, rows("insecure", [0.9, 0.9], "coherent/main/chat")])
    )
    assert joined["rate"].tolist()[:2] == [0.2, 0.4] and joined["rate"][2:].isna().all() and len(joined) == 4
    text = compared(joined)
    assert text.count("10.0 points (mean of 2 models)") == 1  # which cancel in the mean of the condition
    assert "more: insecure +20.0" in text.splitlines()[1] and "more:" not in text.splitlines()[0]


def test_without_rates_nothing_is_compared():
    assert compared(runs("chat").assign(rate=np.nan)).startswith("No model")


def test_shifts_are_those_of_models_in_chat():
    shifts = pd.concat([rows("insecure", [0.5, 0.6], "direction/along"), rows("insecure", [7, 7], "direction/cosine")])
    assert with_shifts(runs("chat", "triggered"), shifts)["along"].tolist() == [0.5, 0.6]
