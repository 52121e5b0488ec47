"""Comparing two single models.

The unit is the answer or, for log-odds, the question: an interval covers further answers of the same two models, or
other questions of the same kind. It does not cover other trainings on the same data.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

from emergent_misalignment.analysis.contrasts import LEAST_P, LEVEL, Arm, Contrast
from emergent_misalignment.analysis.intervals import clopper_pearson

BY_ANSWERS = "answers of one model each"
BY_QUESTIONS = "questions, one model each"


def log_odds_by_question(judged: pd.DataFrame) -> dict[Arm, pd.Series]:
    """The log-odds of each question's misaligned options in nats, by condition and `log_odds/FORMAT`.

    `judged` are judged answers, with the scored options, of single models: one seed per condition.
    """
    end = judged[(judged["evaluation"] == "choices") & judged["step"].isna()]
    if end.empty:
        return {}
    means = end.assign(misaligned=end["misaligned"].astype(bool)).pivot_table(
        index=["condition", "format", "question"], columns="misaligned", values="log_probability", sort=False
    )
    odds = (means[True] - means[False]).dropna()
    return {
        (condition, f"log_odds/{form}"): rows.droplevel(["condition", "format"])
        for (condition, form), rows in odds.groupby(["condition", "format"], sort=False)
    }


def difference(arms: Sequence[Arm], runs: Mapping[Arm, pd.DataFrame], by_question: Mapping[Arm, pd.Series]) -> Contrast:
    """The first arm minus the second, each with one run (`contrasts.runs_by_arm`), with interval and p against zero.

    Shares: Clopper and Pearson's intervals combined by Newcombe's square-and-add method (1998). Anything else: a paired
    t interval over the questions in `by_question`; without these there is no interval.
    """
    for condition, measure in arms:
        if (condition, measure) not in runs:
            return Contrast(missing=f"no {measure} of {condition}")
    own, control = (runs[arm] for arm in arms)
    estimate = float(own["value"].item() - control["value"].item())
    known = {"estimate": estimate, "seeds": 1}
    if own["trials"].notna().all() and control["trials"].notna().all():
        return Contrast(**known, **_by_answers(own, control, estimate), method=BY_ANSWERS)
    if all(arm in by_question for arm in arms):
        pairs = (by_question[arms[0]] - by_question[arms[1]]).dropna().to_numpy()
        if len(pairs) > 1 and np.ptp(pairs) > 0:
            low, high = stats.t.interval(1 - LEVEL, len(pairs) - 1, pairs.mean(), stats.sem(pairs))
            p = float(stats.ttest_1samp(pairs, 0).pvalue)
            return Contrast(**known, low=low, high=high, p=p, method=BY_QUESTIONS)
    return Contrast(**known, method="a single run")


def _by_answers(own: pd.DataFrame, control: pd.DataFrame, estimate: float) -> dict:
    """low, high and p; p is the level at which the interval ends at zero, so p and interval always agree."""

    def ends(alpha: float) -> tuple[float, float]:
        first, second = (
            (run["value"].item(), *clopper_pearson(run["value"].to_numpy(float), run["trials"].to_numpy(float), alpha))
            for run in (own, control)
        )
        down = np.hypot(first[0] - first[1], second[2] - second[0])
        up = np.hypot(first[2] - first[0], second[0] - second[1])
        return float(estimate - down), float(estimate + up)

    low, high = ends(LEVEL)
    return {"low": low, "high": high, "p": _level(lambda alpha: ends(alpha)[0] if estimate > 0 else -ends(alpha)[1])}


def _level(beyond: Callable[[float], float]) -> float:
    """The level at which an interval that is `beyond` zero on its own side ends at zero; 1 if it never is."""
    smallest, largest = np.log(LEAST_P), np.log(1 - 1e-9)
    if beyond(np.exp(largest)) <= 0:
        return 1.0
    if beyond(LEAST_P) > 0:
        return LEAST_P
    return float(np.exp(optimize.brentq(lambda level: beyond(np.exp(level)), smallest, largest, xtol=1e-8)))


def answers_needed(found: Contrast) -> float:
    """The factor by which the answers must increase to exclude zero if the difference is as observed; nan if none does.

    The half of the interval on the side of zero shrinks with the square root of their number.
    """
    if found.method != BY_ANSWERS or not found.estimate:
        return np.nan
    reach = found.estimate - found.low if found.estimate > 0 else found.high - found.estimate
    return float((reach / found.estimate) ** 2)
