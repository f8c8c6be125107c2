"""Whether a CUDA graph is being captured, and which."""

from __future__ import annotations

import torch
from torch import Tensor


def is_captured(tensor: Tensor) -> bool:
    """Whether what is now done with the tensor is only recorded, for a CUDA graph."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def captured_graph(tensor: Tensor) -> int | None:
    """The number of that graph, None without one: what it computes is in its own memory, from its own replay."""
    if not is_captured(tensor):
        return None
    from cuda_kernels.cuda_launch import capture_number  # needs the CUDA driver's bindings

    return capture_number(torch._C._cuda_getCurrentRawStream(tensor.get_device()))
