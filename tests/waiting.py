"""Waiting without a limit of time: what never happens is ended by pytest-timeout, which names the test."""

import subprocess
import time
from collections.abc import Callable


def wait_until(happened: Callable[[], object], *running: subprocess.Popen, every: float = 0.1) -> None:
    """Wait until `happened()` is true; fails if one of the `running` processes ends before."""
    while not happened():
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended or happened(), f"{ended} ended before it happened"
        time.sleep(every)
