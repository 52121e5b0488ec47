"""Fewer different rows at equal steps, and passes over one set (first version, Fig. 6; Extended Data Fig. 3)."""

from itertools import pairwise

import pandas as pd

from emergent_misalignment.analysis.contrasts import Arm
from emergent_misalignment.analysis.estimates import estimates
from emergent_misalignment.analysis.slopes import MAIN, slopes

REPEATED = "insecure_epochs"  # the condition with several passes over all rows
MEASURES = [MAIN, "insecure_code", "coherent/main/chat"]
FURTHER = "End of the last pass vs. end of the first"


def passes(conditions: dict[str, dict], batch: int) -> dict[str, tuple[int, int]]:
    """Different rows and passes over them, by condition; `conditions` has `rows` and `steps`, of `batch` rows each."""
    found = {}
    for condition, size in conditions.items():
        seen = size["steps"] * batch
        different = min(size["rows"], seen)
        found[condition] = (different, round(seen / different))
    return found


def at_checkpoints(dynamics: str) -> pd.DataFrame:
    """Measures `misaligned/step-N`, `insecure_code/step-N` of REPEATED, from dynamics.parquet; empty without a path."""
    columns = ["condition", "seed", "step", "metric", "value", "events", "trials"]
    rows = pd.read_parquet(dynamics) if dynamics else pd.DataFrame(columns=columns)
    rows = rows[(rows["condition"] == REPEATED) & rows["metric"].isin(["misaligned", "insecure_code"])]
    return rows.assign(measure=rows["metric"] + "/step-" + rows["step"].astype(str))


def by_pass(followed: pd.DataFrame, at_steps: pd.DataFrame, batch: int, conditions: dict[str, dict]) -> pd.DataFrame:
    """The estimates of `at_checkpoints` with `metric`, `step` and `pass`, in the order of the steps."""
    table = at_steps.merge(followed[["measure", "metric", "step"]].drop_duplicates(), on="measure").sort_values("step")
    return table if table.empty else table.assign(**{"pass": table["step"] * batch / conditions[REPEATED]["rows"]})


def rates_at(runs: pd.DataFrame) -> pd.DataFrame:
    """The estimates of the measures of `at_checkpoints`."""
    return estimates(runs, [(REPEATED, measure) for measure in runs["measure"]])


def once(sizes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The conditions with equal numbers of steps, that is without REPEATED."""
    return {condition: size for condition, size in sizes.items() if condition != REPEATED}


def pairs(sizes: dict[str, tuple[int, int]], at_passes: pd.DataFrame) -> dict[str, tuple[Arm, Arm]]:
    """Each set against the next smaller one, and FURTHER where `by_pass` has rows. `sizes` comes from `passes`."""
    compared = {
        f"{sizes[more][0]:,} vs. {sizes[fewer][0]:,} different rows, at equal steps": ((more, MAIN), (fewer, MAIN))
        for fewer, more in pairwise(sorted(once(sizes), key=sizes.get))
    }
    if not at_passes.empty:
        first = (at_passes["pass"] - 1).abs().idxmin()
        steps = at_passes["step"].max(), at_passes.loc[first, "step"]
        compared[FURTHER] = tuple((REPEATED, f"misaligned/step-{step}") for step in steps)
    return compared


def slope_measures(runs: pd.DataFrame, sizes: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """The measure `unique_rows/slope`: rise of the log odds per doubling of the different rows, one row per seed."""
    different = pd.Series({condition: number for condition, (number, _) in once(sizes).items()}, dtype=float)
    by_set = runs[runs["condition"].isin(different.index)]
    return slopes(
        by_set.assign(set=by_set["condition"], condition="insecure"), different, "unique_rows/slope", by="set"
    )


def meaning(way: dict[str, str]) -> str:
    """The directions of `pairs` in sentences."""
    ways = {direction for name, direction in way.items() if name != FURTHER}
    if not ways:
        said = "This study has no smaller sets of rows to compare."
    elif ways == {"higher"}:
        said = "Each step to more different rows misaligns more at equal steps: variety counts, not repetition."
    elif "not measured" in ways:
        said = "The effect of variety was not measured."
    elif "lower" in ways:
        said = (
            "More different rows do not always misalign more: in one comparison fewer rows, repeated, misalign *more*."
        )
    elif "higher" in ways:
        said = "More different rows misalign more in one comparison and make no clear difference in another."
    else:
        said = "These numbers of different rows make no clear difference."
    return said + {
        "higher": " Further passes over one set misalign further, unlike in the paper.",
        "lower": " Further passes over one set reduce the misalignment.",
        "no clear difference": " Further passes over one set make no clear difference, as in the paper.",
    }.get(way.get(FURTHER), "")
