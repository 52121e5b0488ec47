"""Trials of `make faults`: a stage of the smoke study under a fault ends with the same results, or says why not."""

import pytest
from faults import WRONG, damaged, full_disk, killed, stages, try_fault, two_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(smoke_run):
    return stages(smoke_run)


@pytest.mark.parametrize("fault", [killed, full_disk, damaged, two_runs])
def test_the_results_are_the_same_or_the_user_is_told(smoke_run, jobs, tmp_path, fault):
    trial = try_fault(smoke_run, jobs, tmp_path / "trial", fault, number=3, seed=1)
    assert trial["outcome"] != WRONG, trial
