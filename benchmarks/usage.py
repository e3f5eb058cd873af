"""What a process and its descendants take, watched from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import psutil


class Usage(NamedTuple):
    """What a process and its descendants took."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def watched(process: psutil.Process, running: Callable[[], bool]) -> Usage:
    """Look at a process and its descendants until it ends. What a descendant did after the last look at it, a tenth of
    a second at most, is not counted."""
    started, peak = time.monotonic(), 0
    seconds: dict[tuple[int, float], float] = {}
    while running():
        held = 0
        for one in (process, *_descendants(process)):
            try:
                with one.oneshot():
                    times, memory = one.cpu_times(), one.memory_info().rss
                    seconds[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue
            held += memory
        peak = max(peak, held)
        time.sleep(0.1)
    return Usage(sum(seconds.values()), time.monotonic() - started, peak)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []
