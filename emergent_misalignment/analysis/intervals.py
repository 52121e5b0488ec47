"""Rates of misalignment and their intervals.

The unit is the training run (its seed): a rate is first computed within a run, as the mean over the questions, and the
interval is over runs. Intervals over single answers would be several times too narrow, because the answers of one run
are correlated.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import special, stats
from statsmodels.genmod.cov_struct import Exchangeable
from statsmodels.genmod.families import Binomial

BOOTSTRAP_RESAMPLES = 2000  # as in the paper


@dataclass(frozen=True)
class Interval:
    """A 95% interval and the method by which it was computed."""

    low: float
    high: float
    method: str


def interval_over_runs(rates: np.ndarray, counted: np.ndarray) -> Interval:
    """95% interval of a share from the `rates` of runs with `counted` answers; see `share_limits`."""
    low, high = share_limits(rates, counted, 0.05)
    exact = clopper_pearson(rates, counted, 0.05)
    return Interval(float(low), float(high), "Clopper-Pearson" if (low, high) == exact else "t over runs")


def share_limits(rates: np.ndarray, counted: np.ndarray, alpha: float) -> tuple[float, float]:
    """The ends of the interval of a share at the level 1 - `alpha`, for other runs; they are between 0 and 1.

    `rates` and `counted` have one value per run; the share is the mean of the rates. The interval is a t interval on
    the logit scale (`share_at`) that is never narrower than Clopper and Pearson's over all answers, which takes the
    runs to be alike. The latter is used alone if the spread between runs is unknown (`tells_spread`).

    Coverage at 95% in simulations (3, 5 and 10 runs of 100 or 800 answers, shares of .001 to .5, standard deviation
    between runs of 0 to 1 on the logit scale): .93 at least in 167 of 168 cases and .90 in one (three runs, .001),
    where a t interval of the logits alone has .78 at the worst and is below .93 in 35.
    """
    low, high = clopper_pearson(rates, counted, alpha)
    if not tells_spread(rates, counted):
        return low, high
    freedom = len(rates) - 1
    reach = -special.stdtrit(freedom, alpha / 2)
    ends = share_at(rates, counted, np.array([-reach, reach]), freedom)
    return min(low, float(ends[0])), max(high, float(ends[1]))


def tells_spread(rates: np.ndarray, counted: np.ndarray) -> bool:
    """Whether the spread between runs is known: there are several, and both events and other answers."""
    return len(rates) > 1 and min(rates.mean(), 1 - rates.mean()) * counted.sum() >= 0.5


def share_at(rates: np.ndarray, counted: np.ndarray, t: np.ndarray, freedom: int) -> np.ndarray:
    """The shares at distance `t` (of any shape) from the estimate, in quantiles of Student's distribution.

    The distance is in standard errors on the logit scale, from the mean of the rates (half an event added). The spread
    is that of the runs' logits or of their rates, transformed to the logit scale, whichever is larger: a run far below
    the others shows in the former, a run far above in the latter. If the spread is unknown, the share is an end of
    Clopper and Pearson's interval at the same level.
    """
    if not tells_spread(rates, counted):
        ends = clopper_pearson(rates, counted, 2 * special.stdtr(freedom, -np.abs(t)))
        return np.where(np.abs(t) < 1e-9, rates.mean(), np.where(t < 0, *ends))
    logits = special.logit((rates * counted + 0.5) / (counted + 1))
    centre = (rates.mean() * counted.sum() + 0.5) / (counted.sum() + 1)
    spread = max(np.std(logits, ddof=1), np.std(rates, ddof=1) / (centre * (1 - centre)))
    return special.expit(special.logit(centre) + t * spread / np.sqrt(len(rates)))


def clopper_pearson(rates: np.ndarray, counted: np.ndarray, alpha: float | np.ndarray) -> tuple:
    """The exact interval of a share over all answers; the number of events is the mean rate times the answers.

    Equal to statsmodels' `proportion_confint(method="beta")`, which does not accept an array of levels `alpha`.
    """
    total = counted.sum()
    events = min(rates.mean(), 1.0) * total
    none = 0.0 * np.asarray(alpha)
    low = special.betaincinv(events, total - events + 1, alpha / 2) if events > 0 else none
    high = 1 - special.betaincinv(total - events, events + 1, alpha / 2) if events < total else none + 1
    return low, high


def score_interval(values: np.ndarray) -> tuple[float, float]:
    """95% t interval over runs of a score, from one value per run."""
    return stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))


def interval_over_questions(rates: np.ndarray) -> Interval:
    """95% t interval over the questions of a single run; it does not cover other runs."""
    low, high = score_interval(rates)
    return Interval(max(low, 0.0), min(high, 1.0), "t over questions, one run")


def two_way_interval(rates: np.ndarray) -> Interval:
    """95% interval for other runs and other questions of the same kind: two-way cluster-robust t.

    `rates` has the shape `[runs, questions]`, both at least 2. Variances over runs and over questions are added and
    their overlap is subtracted (Cameron, Gelbach and Miller 2011); the degrees of freedom are those of the smaller.
    """
    runs, questions = rates.shape
    residuals = rates - rates.mean()
    over_runs = (residuals.mean(1) ** 2).sum() / (runs * (runs - 1))
    over_questions = (residuals.mean(0) ** 2).sum() / (questions * (questions - 1))
    both = (residuals**2).sum() / (runs * questions) ** 2
    error = np.sqrt(max(over_runs + over_questions - both, over_runs, over_questions))
    reach = stats.t.ppf(0.975, min(runs, questions) - 1) * error
    return Interval(max(rates.mean() - reach, 0.0), min(rates.mean() + reach, 1.0), "two-way t")


def paper_bootstrap(rates: np.ndarray) -> Interval:
    """The paper's interval: percentiles of the mean over models drawn with replacement (section 3.4).

    With few models it is too narrow; it is computed for comparison with the paper's figures.
    """
    # scipy.stats.bootstrap draws the same samples but rounds percentiles differently: 1 in 300 ends differs in a table.
    draws = np.random.default_rng(0).choice(rates, size=(BOOTSTRAP_RESAMPLES, len(rates)))
    low, high = np.quantile(draws.mean(axis=1), [0.025, 0.975])
    return Interval(low, high, "bootstrap over models")


COLUMNS = (
    *("condition", "format", "question_set", "question", "rate", "ci_low", "ci_high", "interval"),
    *("bootstrap_low", "bootstrap_high", "two_way_low", "two_way_high", "seeds", "answers", "coherent_share"),
)


def summarise(runs: pd.DataFrame, question_set: str) -> pd.DataFrame:
    """The rows of `tables/misalignment.csv` for one set of questions: all questions together, and each question.

    `runs` comes from `misalignment_by_run`. The columns are COLUMNS: `rate` is the mean over runs of the mean over
    questions, `ci_low` and `ci_high` its 95% interval by the method `interval`, `bootstrap_*` the paper's interval,
    `two_way_*` the interval for other questions too (several runs, all questions), `seeds` and `answers` their numbers,
    `coherent_share` the share of these answers that is coherent. For a single run, the interval of all questions is
    over the questions.
    """
    rows = []
    for (condition, form), group in runs.groupby(["condition", "format"], sort=False):
        place = {"condition": condition, "format": form, "question_set": question_set}
        rows.append({**place, "question": "all", **_summary(group)})
        for question, single in group.groupby("question", sort=False):
            rows.append({**place, "question": question, **_summary(single)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _summary(group: pd.DataFrame) -> dict:
    facts = {
        "seeds": group["seed"].nunique(),
        "answers": int(group["answers"].sum()),
        "coherent_share": group["coherent"].sum() / group["answers"].sum(),
    }
    usable = group.dropna(subset="rate")
    if usable.empty:
        return facts | {"interval": "too few coherent answers"}
    by_run = usable.groupby("seed").agg(rate=("rate", "mean"), counted=("counted", "sum"), events=("misaligned", "sum"))
    rates = usable.pivot(index="seed", columns="question", values="rate").dropna(axis=1).to_numpy()
    runs, questions = rates.shape
    if runs == 1 and questions > 1 and by_run["events"].item() > 0:
        interval = interval_over_questions(rates[0])
    else:
        interval = interval_over_runs(*by_run[["rate", "counted"]].to_numpy(float).T)
    facts |= {"rate": by_run["rate"].mean(), **_ends(interval), "interval": interval.method}
    if runs > 1:
        facts |= _ends(paper_bootstrap(by_run["rate"].to_numpy()), "bootstrap")
    if runs > 1 and questions > 1:
        facts |= _ends(two_way_interval(rates), "two_way")
    return facts


def _ends(interval: Interval, prefix: str = "ci") -> dict[str, float]:
    return {f"{prefix}_low": interval.low, f"{prefix}_high": interval.high}


def by_run(runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A table of measures with one row per condition and seed: `value` is the mean over the questions of `runs`."""
    groups = runs.groupby(["condition", "seed"], sort=False)
    table = groups.agg(value=("rate", "mean"), events=("misaligned", "sum"), trials=("counted", "sum"))
    return table.reset_index().assign(measure=measure)


def regression_check(runs: pd.DataFrame, condition: str, control: str) -> dict:
    """The contrast as an odds ratio from a logistic regression with a term for each question, as a check.

    Generalised estimating equations with the seed as cluster and the bias-reduced covariance, on each run's share per
    question, with half an event added on either side so that a condition without events has finite odds. Returns
    `odds_ratio`, `ci_low`, `ci_high`, `p`; all missing unless both conditions have two runs with counted answers.
    """
    rows = runs[runs["condition"].isin([condition, control]) & (runs["counted"] > 0)].copy()
    rows["share"] = (rows["misaligned"] + 0.5) / (rows["counted"] + 1)
    rows["treated"] = (rows["condition"] == condition).astype(float)
    names = {"condition": condition, "control": control}
    seeds = rows.groupby("condition")["seed"].nunique().reindex([condition, control], fill_value=0)
    if seeds.min() < 2:
        return names | dict.fromkeys(("odds_ratio", "ci_low", "ci_high", "p"), np.nan)
    model = smf.gee("share ~ treated + C(question)", "seed", rows, family=Binomial(), cov_struct=Exchangeable())
    fit = model.fit(cov_type="bias_reduced")
    low, high = fit.conf_int().loc["treated"]
    odds_ratio, low, high = np.exp([fit.params["treated"], low, high])
    return names | {"odds_ratio": odds_ratio, "ci_low": low, "ci_high": high, "p": fit.pvalues["treated"]}


def regression_sentence(check: dict) -> str:
    """The result of `regression_check` as a paragraph of Markdown; empty if it is missing."""
    if np.isnan(check["odds_ratio"]):
        return ""
    return (
        "\n\nA logistic regression with a term for each question, as a check of the direction: odds ratio "
        f"{check['odds_ratio']:.3g} ({check['ci_low']:.3g} to {check['ci_high']:.3g})."
    )


def code_rates(judged: pd.DataFrame) -> pd.DataFrame:
    """The share of insecure code in the answers to coding requests, by condition, with a 95% interval over runs.

    `judged` has the columns of the judged answers and `condition`, `seed`. Columns: `condition`, `insecure`, `ci_low`,
    `ci_high`, `interval`, `other` (share of answers that are neither form of the requested code), `seeds`, `answers`.
    The interval of a single run is Clopper and Pearson's over its answers.
    """
    columns = ["condition", "insecure", "ci_low", "ci_high", "interval", "other", "seeds", "answers"]
    rows = judged.assign(events=judged["verdict"] == "insecure", other=judged["verdict"] == "other")
    table = []
    for condition, group in rows.groupby("condition", sort=False):
        runs = group.groupby("seed").agg(rate=("events", "mean"), counted=("events", "size"))
        interval = interval_over_runs(*runs.to_numpy(float).T)
        ends = (interval.low, interval.high, interval.method)
        table.append((condition, runs["rate"].mean(), *ends, group["other"].mean(), len(runs), len(group)))
    return pd.DataFrame(table, columns=columns)
