"""Capturing CUDA graphs, and whether one is being captured and which."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# Pieces of work that a captured graph may do at the same time. Of four blocks, hardly more are ever ready.
SIDE_STREAMS = 8
# Of a tensor: kernels of more fill a GPU by themselves, and what two streams read is not used again within a capture.
MOST_ROWS_ASIDE = 16384
# Other threads, such as those that pin batches, may go on with calls that a capture must not contain.
CAPTURE_MODE = "thread_local"


PATIENCE = 16
"""Captures, without as many replays, after which nothing more is captured: it does not pay."""


class Patience:
    """Whether to go on capturing, where sizes may change from call to call.

    Attributes:
        captures, replays: How many there have been.
    """

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self._told = False
        self._refused: tuple[Hashable, int] = None, 0

    def pays(self, size: Hashable) -> bool:
        """Whether there may be a graph for calls of this size. The first time that there may not, a warning says so;
        some dozen such calls, one after the other, change it."""
        if self.captures < PATIENCE or self.replays >= 2 * self.captures:
            return True
        last, calls = self._refused
        self._refused = size, calls + 1 if last == size else 1
        if not self._told:
            self._told = True
            warnings.warn(
                f"{self.captures} CUDA graphs were captured for {self.replays} calls, because numbers of atoms or "
                "structures change from call to call; others are computed without a graph until one stays",
                stacklevel=3,
            )
        return self._refused[1] > 2 * PATIENCE


@contextmanager
def beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """After what the current stream has been given, and at the same time as what it will be given."""
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield


_rehearsals = 0


@contextmanager
def rehearsing(stream: torch.cuda.Stream) -> Iterator[None]:
    """After what the current stream has been given, and before what it will be given. All goes the ways that it will go
    when it is captured: kernels are compiled and their tables are made, which a capture could not do. It holds for all
    threads: backward passes have their own."""
    global _rehearsals
    with beside(stream):
        _rehearsals += 1
        try:
            yield
        finally:
            _rehearsals -= 1
    torch.cuda.current_stream(stream.device).wait_stream(stream)


@contextmanager
def capturing(stream: torch.cuda.Stream, pool=None) -> Iterator[torch.cuda.CUDAGraph]:
    """A graph of what is done on this stream, in memory of this pool."""
    # Leaves of earlier derivatives that only garbage still holds would draw in the streams which they were made on.
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool, stream, CAPTURE_MODE):
        yield graph


def is_captured(tensor: Tensor) -> bool:
    """Whether what is now done with the tensor is only recorded, for a CUDA graph."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def is_for_graph(tensor: Tensor) -> bool:
    """Whether what is now done with the tensor is recorded for a CUDA graph, or rehearsed for one."""
    return tensor.is_cuda and (_rehearsals > 0 or torch.cuda.is_current_stream_capturing())


def aside(function: Callable[..., T], *inputs: object) -> Callable[[], T]:
    """Begins ``function(*inputs)``, whose result is a tensor or None, and returns what gives that result.

    In a graph that is being captured, whatever is done until the result is asked for may run at the same time, and so
    may their derivatives: kernels of small molecules leave most of a GPU idle. Elsewhere, and with large tensors, the
    function is done at once.
    """
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    captured = bool(tensors) and is_captured(tensors[0])
    if not captured or any(tensor.dim() and tensor.shape[0] > MOST_ROWS_ASIDE for tensor in tensors):
        result = function(*inputs)
        return lambda: result
    device = tensors[0].device
    side = next(_side_streams(device))
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        result = function(*inputs)
    for tensor in tensors:
        tensor.record_stream(side)  # its memory is not given to anything else before the side stream has read it

    def finished() -> T:
        stream = torch.cuda.current_stream(device)
        stream.wait_stream(side)
        if isinstance(result, Tensor):
            result.record_stream(stream)
        return result

    return finished


def side_by_side(functions: Sequence[Callable[[], None]], device: torch.device) -> None:
    """Calls functions that do not need each other; on a GPU on several streams, because each leaves most of it idle."""
    if device.type != "cuda":
        for function in functions:
            function()
        return
    current, streams = torch.cuda.current_stream(device), _side_streams(device)
    used = []
    for function in functions:
        used.append(next(streams))
        used[-1].wait_stream(current)
        with torch.cuda.stream(used[-1]):
            function()
    for side in used:
        current.wait_stream(side)


@cache
def _side_streams(device: torch.device) -> Iterator[torch.cuda.Stream]:
    return cycle([torch.cuda.Stream(device) for _ in range(SIDE_STREAMS)])


def captured_graph(tensor: Tensor) -> int | None:
    """The number of that graph, None without one: what it computes is in its own memory, from its own replay."""
    if not is_captured(tensor):
        return None
    from cuda_kernels.cuda.driver import capture_number  # needs the CUDA driver's bindings

    return capture_number(torch.cuda.current_stream(tensor.get_device()).cuda_stream)
