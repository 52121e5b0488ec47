"""Tables in notebooks."""

import numpy as np
import pandas as pd

from emergent_misalignment.report import tables

ESTIMATES = pd.DataFrame(
    {
        "condition": ["insecure", "secure"],
        "measure": "m",
        "estimate": [0.25, np.nan],
        "ci_low": [0.1, np.nan],
        "ci_high": [0.4, np.nan],
        "interval": ["t over runs", "no value"],
        "seeds": [5, 0],
        "answers": [800, 0],
    }
)


def test_an_arm_is_a_row_in_percent():
    table = tables.estimates_table(ESTIMATES.assign(published=[0.198, np.nan]))
    assert list(table) == ["estimate", "95% interval", "published", "seeds", "answers", "method"]
    assert table.loc[("m", "insecure")].tolist() == ["25.0%", "10.0% to 40.0%", "19.8%", 5, 800, "t over runs"]
    assert table.loc[("m", "secure")].tolist() == ["", "", "", 0, 0, "no value"]
    assert list(tables.estimates_table(ESTIMATES.iloc[:0])) == [
        "estimate",
        "95% interval",
        "seeds",
        "answers",
        "method",
    ]
