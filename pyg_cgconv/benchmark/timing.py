"""Time, memory and bandwidth, on either device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

CYCLES = 2_000_000
"""About a millisecond of a GPU's time."""

LEAST_HIDING = 2.0
"""Milliseconds for which a GPU sleeps at least, so that the host gets ahead: what is timed afterwards is kernels, not
launches."""

LEAST_CALLS = 7

HOST_CALLS = 100
"""Calls without a synchronisation between them: enough that the one at their end does not count."""


def milliseconds(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The median time of a call, of at least :data:`LEAST_CALLS` and as many as take so many seconds, after two that
    warm up; on a GPU that of its kernels, with the host's cost hidden."""
    for _ in range(2):
        function()
    once = _kernels(_launching(function)) if device.type == "cuda" else _wall
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        times.append(once(function))
    return statistics.median(times)


def host_milliseconds(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The median wall time of a call, the host's work included: of many calls in a row, divided by their number."""

    def calls():
        for _ in range(HOST_CALLS):
            function()

    finished(calls, device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        times.append(_wall(lambda: finished(calls, device)) / HOST_CALLS)
    return statistics.median(times)


def alternating(calls: dict[str, Callable[[], object]], device: torch.device, seconds: float) -> dict[str, float]:
    """The median wall time of each call, the host's work included, in turns: what changes in the meantime, clocks or
    other users, changes for all. At least :data:`LEAST_CALLS` of each, and as many as take so many seconds for each. A
    call that runs out of memory has no time. Calls have been warmed up before."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while times and (rounds < LEAST_CALLS or time.perf_counter() < end):
        for name in list(times):
            try:
                times[name].append(_wall(lambda call=calls[name]: finished(call, device)))
            except torch.OutOfMemoryError:
                del times[name]
        rounds += 1
    return {name: statistics.median(each) for name, each in times.items()}


def finished(call: Callable[[], Result], device: torch.device) -> Result:
    """What a call returns, when the device is done with it."""
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result


def working_memory(function: Callable[[], Tensor | Sequence[Tensor]]) -> float:
    """Peak megabytes on the GPU during a call, beside what was there before it and what it returns."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = function()
    returned = sum(t.nbytes for t in ([results] if isinstance(results, Tensor) else results))
    return (torch.cuda.max_memory_allocated() - before - returned) / 1e6


def bandwidth(device: torch.device) -> float:
    """Bytes a millisecond that a large copy reads and writes."""
    numbers = 2**29 if device.type == "cuda" else 2**26
    source = torch.ones(numbers, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * numbers / milliseconds(lambda: target.copy_(source), device, 0)


def arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds a millisecond of a large matrix product, in full precision."""
    n = 8192 if device.type == "cuda" else 2048
    matrix = torch.ones(n, n, dtype=dtype, device=device)
    return n**3 / milliseconds(lambda: matrix @ matrix, device, 0)


def _wall(function) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _launching(function) -> float:
    """Milliseconds until the host has launched all kernels of a call."""
    torch.cuda.synchronize()
    return _wall(function)


def _kernels(launching: float) -> Callable[[Callable[[], object]], float]:
    """Times the kernels of a call that the host launches in so many milliseconds."""
    cycles = int(CYCLES * max(LEAST_HIDING, 1.5 * launching))

    def once(function) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)

    return once
