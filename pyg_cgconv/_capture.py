"""Capturing CUDA graphs, and whether one is being captured and which."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Other threads, such as those that pin batches, may go on with calls that a capture must not contain.
CAPTURE_MODE = "thread_local"


@contextmanager
def on_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """After what the current stream has been given, and before what it will be given."""
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
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


def captured_graph(tensor: Tensor) -> int | None:
    """The number of that graph, None without one: what it computes is in its own memory, from its own replay."""
    if not is_captured(tensor):
        return None
    from cuda_kernels.cuda_launch import capture_number  # needs the CUDA driver's bindings

    return capture_number(torch._C._cuda_getCurrentRawStream(tensor.get_device()))
