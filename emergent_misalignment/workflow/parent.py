"""End a process, with the processes that it has started, when the process that started it is gone."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil


def end_with(starter: int) -> None:
    """End this process and its children at SIGINT or SIGTERM, or when the process of this number is gone, if not 0.

    A signal reaches one process only, and a process that is killed cannot pass it on: what it started would live on
    and write to files of the next run. The main thread gets a KeyboardInterrupt. The number has to be passed, because
    this process may be an orphan before it can look for its parent.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if starter:
        threading.Thread(target=_watch, args=(starter,), daemon=True).start()


def _stop(*_) -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    raise KeyboardInterrupt


def _watch(starter: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(starter)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
