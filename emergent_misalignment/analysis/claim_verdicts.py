"""The rule by which a part of a claim, and a claim, get a verdict (docs/verdicts.md).

A part is tested on three sides: that the effect is on the claimed side, that it is smaller than what matters, and that
it is on the other side. At most one of these hypotheses is false at a time, so each is tested at its own level (Goeman,
Solari and Stijnen 2010). A claim is decided by its core parts: *all of them* is an intersection-union test, which needs
no correction.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from emergent_misalignment.analysis.contrasts import LEVEL, Contrast

AS_CLAIMED, ABSENT, OPPOSITE, UNDECIDED = "as claimed", "absent", "opposite", "undecided"
NOT_TESTABLE, NOT_MEASURED = "not testable", "not measured"
PART_VERDICTS = (AS_CLAIMED, ABSENT, OPPOSITE, UNDECIDED, NOT_TESTABLE, NOT_MEASURED)
REPRODUCED, PARTLY, NOT_REPRODUCED, CONTRADICTED = "reproduced", "partly reproduced", "not reproduced", "contradicted"
VERDICTS = (REPRODUCED, PARTLY, NOT_REPRODUCED, CONTRADICTED, UNDECIDED, NOT_TESTABLE, NOT_MEASURED)
NO_HIGHER = "no_higher"  # expected: no effect, or one below
POWER = 0.8
MOST_SEEDS = 1000  # largest number of seeds that is recommended


def part_verdict(found: Contrast, expect: str, matters: float) -> str:
    """The verdict on a part: `expect` is "above", "below" or "no_higher", `matters` the smallest effect that matters.

    The effect is the distance of the estimate from the reference, positive on the claimed side.
    - as claimed: the 95% interval excludes the reference and the effect is at least `matters`; for "no_higher", the
      90% interval ends below `matters`.
    - absent: the 90% interval is within `matters` of the reference.
    - opposite: as claimed for the other side; for "no_higher", for "above".
    """
    if found.missing:
        return NOT_MEASURED
    if np.isnan(found.low):
        return UNDECIDED
    side = -1 if expect == "below" else 1
    effect = side * (found.estimate - found.reference)
    low, high = sorted(side * (end - found.reference) for end in (found.low, found.high))
    low90, high90 = sorted(side * (end - found.reference) for end in (found.low90, found.high90))
    above, below = low > 0 and effect >= matters, high < 0 and effect <= -matters
    if expect == NO_HIGHER:
        return AS_CLAIMED if high90 < matters else OPPOSITE if above else UNDECIDED
    if -matters < low90 and high90 < matters:
        return ABSENT
    return AS_CLAIMED if above else OPPOSITE if below else UNDECIDED


def claim_verdict(core: Sequence[str]) -> str:
    """The verdict on a claim from those on its core parts; the first that was measured is the headline.

    - reproduced: all core parts are as claimed.
    - contradicted: a core part is opposite.
    - not reproduced: the headline is absent.
    - partly reproduced: some core parts are as claimed.
    - not testable: the headline presupposes an effect that is absent.
    """
    measured = [verdict for verdict in core if verdict != NOT_MEASURED]
    if not measured:
        return NOT_MEASURED
    if set(core) == {AS_CLAIMED}:
        return REPRODUCED
    if OPPOSITE in measured:
        return CONTRADICTED
    if measured[0] in (ABSENT, NOT_TESTABLE):
        return NOT_REPRODUCED if measured[0] == ABSENT else NOT_TESTABLE
    return PARTLY if AS_CLAIMED in measured else UNDECIDED


def prevalence(shown: int, seeds: int) -> float:
    """The lower 95% bound of the share of seeds that show an effect, if `shown` of `seeds` do by themselves.

    The tests within seeds err at LEVEL and are taken to find every effect there is (Ince et al. 2021, eLife 62461).
    """
    bound = stats.beta.ppf(LEVEL, shown + 1, seeds - shown + 1)
    return float(max(0.0, (bound - LEVEL) / (1 - LEVEL)))


def by_chance(expects: Sequence[str]) -> float:
    """How many claims with these expectations would at most be as claimed if none of them were true."""
    return sum(LEVEL if expect == NO_HIGHER else LEVEL / 2 for expect in expects)


def seeds_needed(found: Contrast, expect: str, matters: float) -> tuple[int | None, str]:
    """The number of seeds that would decide a part with 80% power if estimate and spread are as observed, and "".

    An effect that matters is decided by excluding the reference, a smaller one by excluding `matters`. Returns None and
    the reason if no number of seeds is enough.
    """
    if np.isnan(found.low):
        return None, found.method
    effect = found.estimate - found.reference
    large = (effect if expect == NO_HIGHER else abs(effect)) >= matters
    smaller = matters if expect == NO_HIGHER else np.copysign(matters, effect)
    bound, level = (0.0, LEVEL) if large else (smaller, 2 * LEVEL)
    seeds = seeds_to_exclude(found, found.reference + bound, level)
    return (seeds, "") if seeds else (None, f"more than {MOST_SEEDS:,} seeds")


def seeds_to_exclude(found: Contrast, bound: float, level: float = LEVEL) -> int | None:
    """The number of seeds with which an interval at 1 - `level` (.05 or .1) excludes `bound` with 80% power.

    Estimate and spread are taken to be as observed; None if more than MOST_SEEDS are needed.
    """
    low, high = (found.low, found.high) if level == LEVEL else (found.low90, found.high90)
    reach = found.estimate - low if bound < found.estimate else high - found.estimate
    if not reach > 0:
        return None
    spread = reach / -special.stdtrit(found.seeds - 1, level / 2) * np.sqrt(found.seeds)
    effect = abs(found.estimate - bound) / spread

    def power(seeds: int) -> float:
        chance = TTestPower().power(effect, seeds, level / 2, alternative="larger")
        return 1.0 if np.isnan(chance) else chance  # nan if it is 1 up to rounding

    more = range(found.seeds + 1, MOST_SEEDS + 1)
    place = bisect_left(more, POWER, key=power)
    return more[place] if place < len(more) else None
