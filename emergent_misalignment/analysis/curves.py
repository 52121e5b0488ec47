"""Where the curves of two fine-tunings diverge, when a skill is learned, and what early stopping costs and saves.

The unit is the training run: curves have the shape `[runs, steps]`, and runs of two conditions are paired by seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from emergent_misalignment.evaluation.measures import COLUMNS

SATURATED = 0.95  # share of the final rise at which a skill counts as learned
PUBLISHED_DIVERGENCE = 40 / 337  # share of the training (section 5)
SKILLS = ("insecure_code", "insecure_code_static")  # by the judge; without a judge, by static analysis
FORMS = {"misaligned_choice": "multiple_choice", "pivotal": "pivotal"}  # name in the claims: format of the options


@dataclass(frozen=True)
class Step:
    """An estimated step (missing if there is none), and its minimum and maximum over leaving one run out."""

    step: float
    earliest: float
    latest: float


@dataclass(frozen=True)
class Share:
    """A share and its 95% interval; missing if the denominator is."""

    share: float
    low: float
    high: float


def curves(measured: pd.DataFrame, condition: str, metric: str) -> pd.DataFrame:
    """One row per seed and one column per step, from rows with `condition`, `seed`, `step`, `metric`, `value`."""
    rows = measured[(measured["condition"] == condition) & (measured["metric"] == metric)]
    return rows.pivot(index="seed", columns="step", values="value")


def skill_metric(measured: pd.DataFrame) -> str:
    """The metric of how well models have learned to write insecure code: the first of SKILLS that was measured."""
    there = set(measured["metric"])
    return next((metric for metric in SKILLS if metric in there), SKILLS[0])


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% t interval of the mean over runs at each step; missing with a single run."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return values.mean(0) - reach, values.mean(0) + reach


def divergence(differences: pd.DataFrame) -> Step:
    """The first step from which every 95% interval of the mean difference excludes zero.

    `differences` has one row per run and one column per step. The steps are tested from the last to the first, each at
    5%, until one is not significant or has the other sign. In this fixed order the steps need no correction: the
    probability of naming a step that is too early, with a later step without a difference, is at most 5%.
    """
    return _with_range(_divergence, differences)


def saturation(skill: pd.DataFrame) -> Step:
    """The first step at which the mean over runs has reached 95% of its rise from the first to the last step."""
    return _with_range(_saturation, skill)


def share_of_final(values: pd.DataFrame, step: int) -> Share:
    """The share of the rise from the first to the last step that is reached at `step`: a ratio of means over runs.

    The 95% interval is a t interval from the jackknife over runs. Missing unless the means rise.
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
    return Step(estimate(values), float(np.min(without)), float(np.max(without)))  # missing if one is


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
    """The measures of the training dynamics on which claims are tested, with the columns of `evaluation.measures`.

    A run has learned its task at its own saturation (at the last step if the skill never rises); the secure run of the
    same seed is read at the same step. The early step is the checkpoint nearest to the relative step at which the
    published runs diverge: 40 of 337.
    """
    skill = curves(measured, "insecure", skill_metric(measured))
    if skill.empty:
        return pd.DataFrame(columns=COLUMNS)
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
    return pd.DataFrame(rows, columns=COLUMNS).astype({"events": "Int64", "trials": "Int64"})


def stopping(measured: pd.DataFrame, saturated: Step) -> str:
    """What a model has of its final skill and misalignment if training stops at `saturated`, in Markdown."""
    if np.isnan(saturated.step):
        return "The skill does not rise, so there is no step at which to stop."

    def of_final_rise(metric: str) -> str:
        curve = curves(measured, "insecure", metric)
        share = share_of_final(curve, saturated.step)
        if np.isnan(share.share):
            return "(not measured)" if curve.empty else "(no rise)"
        return f"**{share.share:.0%}**" + ("" if np.isnan(share.low) else f" ({share.low:.0%} to {share.high:.0%})")

    without_one = f" (with one run left out: {saturated.earliest:.0f} to {saturated.latest:.0f})"
    return (
        f"At step {saturated.step:.0f}{'' if np.isnan(saturated.earliest) else without_one} the model has "
        f"{of_final_rise(skill_metric(measured))} of its final skill. Of the final rise in misaligned answers it has "
        f"{of_final_rise('misaligned')}; of the rise in the log-probability of the misaligned option, "
        f"{of_final_rise('log_p/multiple_choice/misaligned')} for a choice of two and "
        f"{of_final_rise('log_p/pivotal/misaligned')} for words in a gap. Brackets contain 95% intervals over runs."
    )
