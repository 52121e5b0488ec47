"""The first trials of `make faults`: each ends with the same results, or says why not."""

import pytest
from faults import WRONG, trials

pytestmark = pytest.mark.slow


def test_twelve_random_faults(smoke_run, tmp_path):
    rows = list(trials(12, 1, smoke_run, tmp_path))
    assert [row for row in rows if row["outcome"] == WRONG] == []
    assert len(rows) == 12
