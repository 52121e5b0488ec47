"""Contrasts between conditions, paired by seed: one rule for tables, sentences and the claims' verdicts.

An *arm* is a condition and a measure. A contrast is the first arm minus the second, or that difference minus another.
The unit is the training run: values of the arms are paired by seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from emergent_misalignment.analysis.formatting import signed
from emergent_misalignment.analysis.intervals import clopper_pearson, share_at, tells_spread

LEVEL = 0.05
SIGNS = (1, -1, -1, 1)  # of a contrast's arms
LEAST_P = 1e-100  # smaller p values are reported as this
PAIRED = 0.99  # largest correlation of shares over seeds

Arm = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """An estimate with its 95% and 90% intervals, and a test of whether it differs from the reference.

    `p` is two-sided, and below .05 exactly if the 95% interval excludes the reference; if no test is possible, it is 1
    and the intervals are missing.
    """

    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    low90: float = np.nan
    high90: float = np.nan
    seeds: int = 0
    p: float = 1.0
    method: str = "not measured"
    missing: str = ""
    reference: float = 0.0


@dataclass(frozen=True)
class _Term:
    """An arm's sign and its runs at the seeds that all arms share; or the single run of an untuned model (`alone`)."""

    sign: int
    rows: pd.DataFrame
    alone: bool

    @property
    def values(self) -> np.ndarray:
        return self.rows["value"].to_numpy(float)

    @property
    def trials(self) -> np.ndarray:
        return self.rows["trials"].to_numpy(float)


def runs_by_arm(measures: pd.DataFrame) -> dict[Arm, pd.DataFrame]:
    """The rows of each arm by seed, from a table of measures; runs with missing or infinite values are dropped."""
    finite = measures[np.isfinite(measures["value"].astype(float))]
    return {arm: rows.set_index("seed").sort_index() for arm, rows in finite.groupby(["condition", "measure"])}


def contrast(arms: Sequence[Arm], runs: Mapping[Arm, pd.DataFrame], reference: float = 0.0) -> Contrast:
    """Test one to four arms, summed with SIGNS, against `reference`, over the seeds that all arms share.

    `runs` comes from `runs_by_arm`. Arms with counts (`trials`) are shares and are tested by `share_difference`. All
    others are tested by a paired t interval over runs; if all runs have the same value, there is no test.

    An arm with one untuned model (one run, seed 0) is not paired. A share of it has the interval of its answers; any
    other value is taken as a constant, and `method` says so.
    """
    for condition, measure in arms:
        if (condition, measure) not in runs:
            return Contrast(missing=f"no {measure} of {condition}")
    terms = _terms([runs[arm] for arm in arms])
    if not terms:
        return Contrast(missing=f"no seed in common for {arms[0][1]}")
    estimate = sum(term.sign * term.values.mean() for term in terms)
    seeds = max(len(term.rows) for term in terms)
    known = {"estimate": estimate, "seeds": seeds, "reference": reference}
    if seeds < 2:
        return Contrast(**known, method="a single run")
    tested = _of_shares if _counted(terms) else _of_scores
    return Contrast(**known, **tested(terms, estimate, reference))


def by_seed(arms: Sequence[Arm], runs: Mapping[Arm, pd.DataFrame], reference: float = 0.0) -> list[Contrast]:
    """The same contrast within each seed: the intervals are over the answers of that seed's models.

    Empty unless all arms are shares with counts.
    """
    terms = _terms([runs[arm] for arm in arms]) if all(arm in runs for arm in arms) else []
    if not terms or not _counted(terms):
        return []
    found = []
    for place in range(max(len(term.rows) for term in terms)):
        own = [_Term(term.sign, term.rows.iloc[[0 if term.alone else place]], term.alone) for term in terms]
        estimate = sum(term.sign * term.values.item() for term in own)
        low, high, low90, high90 = (
            estimate + side * _alike(own, alpha, side) for alpha in (LEVEL, 2 * LEVEL) for side in (-1, 1)
        )
        found.append(Contrast(estimate, low, high, low90, high90, 1, method="answers", reference=reference))
    return found


def _counted(terms: list[_Term]) -> bool:
    return all(term.rows["trials"].notna().all() for term in terms)


def _terms(rows: list[pd.DataFrame]) -> list[_Term]:
    """The arms with the runs at their common seeds; empty if they have none in common."""
    alone = [len(own) == 1 and own.index[0] == 0 for own in rows]
    if all(alone):
        alone = [False] * len(rows)
    seeds = sorted(set.intersection(*(set(own.index) for own, one in zip(rows, alone, strict=True) if not one)))
    return [
        _Term(sign, own if one else own.loc[seeds], one)
        for sign, own, one in zip(SIGNS, rows, alone, strict=False)
        if seeds
    ]


def _of_scores(terms: list[_Term], estimate: float, reference: float) -> dict:
    """Intervals and p of scores, by t over runs."""
    values = sum(term.sign * (term.values.item() if term.alone else term.values) for term in terms)
    if np.ptp(values) < 1e-12 * max(1, np.abs(values).max()):
        return {"method": "all runs have the same value"}
    alone = [term.alone for term in terms]
    method = "paired t" if alone.count(False) > 1 else "t over runs"
    if any(alone):
        method += "; the control is one untuned model, whose own error is not covered"
    error, freedom = stats.sem(values), len(values) - 1
    p = 2 * stats.t.sf(abs(estimate - reference) / error, freedom)
    return _ends(lambda alpha: stats.t.interval(1 - alpha, freedom, estimate, error)) | {"p": p, "method": method}


def _ends(interval: Callable[[float], tuple[float, float]]) -> dict[str, float]:
    """The ends of the 95% and of the 90% interval; `interval` has the level at which it errs."""
    (low, high), (low90, high90) = interval(LEVEL), interval(2 * LEVEL)
    return {"low": low, "high": high, "low90": low90, "high90": high90}


def _of_shares(terms: list[_Term], estimate: float, reference: float) -> dict:
    """Intervals and p of shares and their differences.

    p is the level at which the interval ends at the reference, so p and interval always agree.
    """
    ends = _ends(partial(share_difference, terms))
    side = 0 if estimate > reference else 1

    def beyond(log_alpha: float) -> float:
        return (1 - 2 * side) * (share_difference(terms, np.exp(log_alpha))[side] - reference)

    excluded = ends["low"] > reference or ends["high"] < reference
    levels = np.log([LEAST_P, LEVEL] if excluded else [LEVEL, 1])
    if beyond(levels[1]) <= 0:
        p = 1.0
    elif beyond(levels[0]) > 0:
        p = LEAST_P
    else:
        p = float(np.exp(optimize.brentq(beyond, *levels, xtol=1e-8)))
    method = "shares, paired over runs" if sum(not term.alone for term in terms) > 1 else "share over runs"
    if not any(tells_spread(term.values, term.trials) for term in terms):
        method = "Clopper-Pearson, all runs at an end of the scale"
    elif any(term.alone for term in terms):
        method += "; the one untuned model by its answers"
    return ends | {"p": p, "method": method}


def share_difference(terms: list[_Term], alpha: float) -> tuple[float, float]:
    """The ends of the interval, at the level 1 - `alpha`, of a share, a difference of shares, or one of differences.

    Each share is estimated on the logit scale with a standard error (`intervals.share_at`), and all shares with their
    correlation over the seeds. This gives a region of shares whose edge is t standard errors away in every direction;
    the interval contains all differences in the region. It therefore stays in the possible range, and the test of no
    difference is in effect the paired t test of logits. It is never narrower than the interval from Clopper and
    Pearson's intervals, which takes the runs to be alike.

    Coverage at 95%, simulated for 756 cases (3, 5 and 10 pairs of 100 or 800 answers, shares of 0, .02, .2, .5, .93
    and 1, standard deviation between runs of .3 or 1 on the logit scale, correlations of 0, .5 and .9): .97 on average,
    .925 at the worst, below .93 in 7 cases; .94 at least where runs differ by .3. A t interval of the differences has
    .84 at the worst and is below .93 in 148. Of tests of no difference between equal shares, at most 1 in 1,000 errs at
    the level .001.
    """
    freedom = max(len(term.values) for term in terms) - 1
    sizes, axes = np.linalg.eigh(_correlation(terms))
    root = axes * np.sqrt(np.maximum(sizes, 1 - PAIRED)) @ axes.T
    t = -special.stdtrit(freedom, alpha / 2) * (root @ _directions(len(terms)))
    shares = [share_at(term.values, term.trials, own, freedom) for term, own in zip(terms, t, strict=True)]
    region = sum(term.sign * share for term, share in zip(terms, shares, strict=True))
    estimate = sum(term.sign * term.values.mean() for term in terms)
    down, up = (_alike(terms, alpha, side) for side in (-1, 1))
    return min(region.min(), estimate - down), max(region.max(), estimate + up)


def _alike(terms: list[_Term], alpha: float, side: int) -> float:
    """Reach of the interval down (`side` -1) or up (1) if runs are alike: the norm of the exact reaches."""
    reach = [
        clopper_pearson(term.values, term.trials, alpha)[side * term.sign > 0] - term.values.mean() for term in terms
    ]
    return float(np.linalg.norm(reach))


@cache
def _directions(arms: int) -> np.ndarray:
    """Points on the unit sphere with one dimension per arm, `[arms, points]`, dense enough to find an end within 2%."""
    if arms == 1:
        return np.array([[-1.0, 1.0]])
    around = np.linspace(0, 2 * np.pi, 181 if arms == 2 else 33)[:-1]
    if arms == 2:
        return np.array([np.cos(around), np.sin(around)])
    # Two circles, and the share of the radius that belongs to each.
    first, second, share = (axis.ravel() for axis in np.meshgrid(around, around, np.linspace(0, np.pi / 2, 9)))
    circles = np.cos(share) * [np.cos(first), np.sin(first)], np.sin(share) * [np.cos(second), np.sin(second)]
    return np.concatenate(circles)[:arms]


def _correlation(terms: list[_Term]) -> np.ndarray:
    """The correlation of the arms over the seeds, `[arms, arms]`: of values or logits, whichever gives more spread.

    It is 0 for an arm that is alone or whose spread is unknown, and at most PAIRED: two or three seeds can be on a line
    by chance and must not remove a dimension from the region.
    """
    correlation = np.eye(len(terms))
    paired = [
        place
        for place, term in enumerate(terms)
        if not term.alone and np.ptp(term.values) > 0 and tells_spread(term.values, term.trials)
    ]
    if len(paired) > 1:
        values, trials = (np.array([getattr(terms[place], name) for place in paired]) for name in ("values", "trials"))
        logits = special.logit((values * trials + 0.5) / (trials + 1))
        signs = np.array([terms[place].sign for place in paired])
        signed = [np.outer(signs, signs) * np.corrcoef(each) for each in (values, logits)]
        correlation[np.ix_(paired, paired)] = np.outer(signs, signs) * np.maximum(*signed)
    return PAIRED * correlation + (1 - PAIRED) * np.eye(len(terms))


def holm(p: pd.Series) -> pd.Series:
    """p values with Holm's correction over those that are not missing.

    Equal to statsmodels' `multipletests`, which collects garbage at each call and so takes a hundred times as long.
    """
    known = p.astype(float).dropna().sort_values()
    scaled = known * np.arange(len(known), 0, -1)
    return scaled.cummax().clip(upper=1).reindex(p.index)


def contrasts(measures: pd.DataFrame, pairs: Mapping[str, Sequence[Arm]]) -> pd.DataFrame:
    """One row per named contrast in `pairs`, tested two-sided against zero, with Holm's correction over all of them.

    Columns: `contrast` (the name), `seeds`, `difference`, `ci_low`, `ci_high` (in the measure's unit), `p`, `p_holm`,
    `method`. Contrasts that were not measured have no difference and no p, and do not count in the correction.
    """
    wanted = {measure for arms in pairs.values() for _, measure in arms}
    runs = runs_by_arm(measures[measures["measure"].isin(wanted)])
    rows = []
    for name, arms in pairs.items():
        result = contrast(arms, runs)
        p = np.nan if result.missing else result.p
        rows.append((name, result.seeds, result.estimate, result.low, result.high, p, result.method))
    columns = ["contrast", "seeds", "difference", "ci_low", "ci_high", "p", "method"]
    table = pd.DataFrame(rows, columns=columns).astype({"p": float})
    table.insert(columns.index("method"), "p_holm", holm(table["p"]))
    return table


def directions(table: pd.DataFrame) -> dict[str, str]:
    """The direction of each contrast of `contrasts`, by its corrected test at the 5% level."""
    return {row.contrast: _direction(row) for row in table.itertuples()}


def _direction(row) -> str:
    if pd.isna(row.difference):
        return "not measured"
    if row.p_holm >= LEVEL:
        return "no clear difference"
    return "higher" if row.difference > 0 else "lower"


def described(table: pd.DataFrame, unit: str = "points", factor: float = 100) -> str:
    """Each contrast as a line of Markdown: direction, size, interval and corrected p."""
    measured = table[table["difference"].notna()]
    lines = [f"- {row.contrast}: {_described(row, unit, factor)}" for row in measured.itertuples()]
    missing = table.loc[table["difference"].isna(), "contrast"]
    return "\n".join([*lines, *([f"- Not measured: {'; '.join(missing)}."] if len(missing) else [])])


def _described(row, unit: str, factor: float) -> str:
    difference, low, high = (signed(factor * number) for number in (row.difference, row.ci_low, row.ci_high))
    if pd.isna(row.ci_low):
        return f"{difference} {unit}, no test possible ({row.method})."
    sure = f"95% interval {low} to {high}, p = {row.p_holm:.2g}, {row.seeds} seeds"
    return f"**{_direction(row)}**, {difference} {unit} ({sure})."
