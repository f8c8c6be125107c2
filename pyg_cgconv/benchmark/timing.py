"""Time and bandwidth, on either device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

HIDING_CYCLES = 4_000_000
"""About 2 ms of a GPU's time, in which the host gets ahead: what is timed afterwards is kernels, not launches."""


def milliseconds(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of a call after two that warm up; on a GPU that of its kernels, with the host's cost hidden."""
    once = _kernels if device.type == "cuda" else _wall
    for _ in range(2):
        function()
    return statistics.median(once(function) for _ in range(repeats))


def _wall(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _kernels(function) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(HIDING_CYCLES)
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def bandwidth(device: torch.device) -> float:
    """Bytes a millisecond that a large copy reads and writes."""
    numbers = 2**29 if device.type == "cuda" else 2**26
    source = torch.ones(numbers, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * numbers / milliseconds(lambda: target.copy_(source), device, 7)
