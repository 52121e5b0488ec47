"""Tables of measures for tests: one row per condition, seed and measure."""

import numpy as np
import pandas as pd


def rows(condition, values, measure="m", trials=np.nan, first_seed=1):
    """Runs with seeds from `first_seed` on; with `trials`, the values are shares with counts."""
    table = pd.DataFrame({"condition": condition, "seed": range(first_seed, first_seed + len(values)), "value": values})
    return table.assign(measure=measure, events=table["value"] * trials, trials=trials)
