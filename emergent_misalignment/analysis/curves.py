"""Where the curves of two fine-tunings diverge, when a skill is learned, and what stopping there costs and saves.

All of it is over training runs: curves have the shape `[runs, steps]`, and run i of one condition is paired with run i
of the other, which had the same seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

SATURATED = 0.95  # of the final rise
PUBLISHED_DIVERGENCE = 40 / 337  # of the training (section 5)
SKILLS = ("insecure_code", "insecure_code_static")  # insecure code by the judge; without one, by static analysis
FORMS = {"misaligned_choice": "multiple_choice", "pivotal": "pivotal"}  # by what claims call them


@dataclass(frozen=True)
class Step:
    """An estimated step (missing if there is none), and the least and the greatest with any one run left out."""

    step: float
    earliest: float
    latest: float


@dataclass(frozen=True)
class Share:
    """A share and its 95% interval; missing where there is nothing to be a share of."""

    share: float
    low: float
    high: float


def curves(measured: pd.DataFrame, condition: str, metric: str) -> pd.DataFrame:
    """One row a seed and one column a step, from rows with `condition`, `seed`, `step`, `metric`, `value`."""
    rows = measured[(measured["condition"] == condition) & (measured["metric"] == metric)]
    return rows.pivot(index="seed", columns="step", values="value")


def skill_metric(measured: pd.DataFrame) -> str:
    """The metric that says how well a study's models have learned to write insecure code: the first of SKILLS."""
    there = set(measured["metric"])
    return next((metric for metric in SKILLS if metric in there), SKILLS[0])


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% t interval of the mean over runs at each step; missing with a single run."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return values.mean(0) - reach, values.mean(0) + reach


def divergence(differences: pd.DataFrame) -> Step:
    """The first step from which the mean difference is off zero for good: every 95% interval from there on excludes it.

    `differences` has one row a run and one column a step. The steps are tested from the last to the first, each at 5%,
    until one is not significant or has the other sign. Tested in such a fixed order, the steps need no correction: the
    chance of naming a step that is too early, with a step behind it at which there is no difference, is 5% at most.
    """
    return _with_range(_divergence, differences)


def saturation(skill: pd.DataFrame) -> Step:
    """The first step at which the mean over runs has risen by 95% of what it will have risen by at the last step."""
    return _with_range(_saturation, skill)


def share_of_final(values: pd.DataFrame, step: int) -> Share:
    """How much of the rise from the first to the last step is there at `step`: a ratio of means over runs.

    Its 95% interval is a t interval from the ratios with one run left out in turn (the jackknife). Missing unless the
    means rise.
    """
    if values.empty:
        return Share(np.nan, np.nan, np.nan)
    steps = values.columns

    def ratio(runs: pd.DataFrame) -> float:
        mean = runs.mean()
        risen = mean[steps[-1]] - mean[steps[0]]
        return (mean[step] - mean[steps[0]]) / risen if risen > 0 else np.nan

    number = len(values)
    without = np.array([ratio(values.drop(index=run)) for run in values.index])
    error = np.sqrt((number - 1) / number * ((without - without.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, number - 1) * error
    whole = ratio(values)
    return Share(whole, whole - reach, whole + reach)


def _with_range(estimate: Callable[[pd.DataFrame], float], values: pd.DataFrame) -> Step:
    without = [estimate(values.drop(index=run)) for run in values.index] if len(values) > 2 else [np.nan]
    return Step(estimate(values), float(np.min(without)), float(np.max(without)))  # missing if any of them is


def _divergence(differences: pd.DataFrame) -> float:
    if differences.empty:
        return np.nan
    low, high = band(differences.to_numpy())
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    if sign[-1] == 0:
        return np.nan
    others = np.flatnonzero(sign != sign[-1])
    return float(differences.columns[others[-1] + 1 if len(others) else 0])


def _saturation(skill: pd.DataFrame) -> float:
    if skill.empty:
        return np.nan
    mean = skill.mean()
    risen = mean - mean.iloc[0]
    if not risen.iloc[-1] > 0:
        return np.nan
    return float(mean.index[risen >= SATURATED * risen.iloc[-1]][0])


def measures(measured: pd.DataFrame) -> pd.DataFrame:
    """What claims are tested on: `condition`, `seed`, `measure`, `value`, and for shares `events` of `trials`.

    A run has learned its task at its own saturation (at the last step, if it never gets better at it), and the secure
    run of the same seed is read at the same step. The early step is the checkpoint that is as far into the training as
    the step at which the published runs diverge: 40 of 337.
    """
    skill = curves(measured, "insecure", skill_metric(measured))
    columns = ["condition", "seed", "measure", "value", "events", "trials"]
    if skill.empty:
        return pd.DataFrame(columns=columns)
    last = skill.columns[-1]
    early = min(skill.columns, key=lambda step: abs(step - PUBLISHED_DIVERGENCE * last))
    sampled = measured[measured["metric"] == "misaligned"].set_index(["condition", "seed", "step"])
    sampled = sampled[["value", "events", "trials"]]
    followed = [condition for condition in ("insecure", "secure") if condition in set(measured["condition"])]
    choices = {
        (form, condition): curves(measured, condition, f"log_p/{form}/misaligned").reindex_like(skill)
        for form in FORMS.values()
        for condition in followed
    }
    rows = []
    for seed in skill.index:
        learned = _saturation(skill.loc[[seed]])
        learned = last if np.isnan(learned) else int(learned)
        rows.append(("insecure", seed, "dynamics/learned_at", learned, None, None))
        for condition in followed:
            (stopped,) = sampled.reindex([(condition, seed, learned)]).to_numpy()
            rows.append((condition, seed, "dynamics/stopped_early", *stopped))
        for name, form in FORMS.items():
            choice = {condition: choices[form, condition].loc[seed] for condition in followed}
            if "secure" in choice:
                prefix = "" if name == "misaligned_choice" else f"{name}_"
                ahead = choice["insecure"][early] - choice["secure"][early]
                rows.append(("insecure", seed, f"dynamics/{prefix}early_difference", ahead, None, None))
            for condition, curve in choice.items():
                rise = curve[last] - curve[learned]
                rows.append((condition, seed, f"dynamics/{name}_rise_late", rise, None, None))
    return pd.DataFrame(rows, columns=columns).astype({"events": "Int64", "trials": "Int64"})
