"""What the time of a call goes to, by the names of its kernels; on a CPU by those of PyTorch's operations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .timing import finished

CALLS = 3

GROUPS = {
    "this project's kernels": r"^_?contract|pyg_cgconv",
    "cuequivariance": r"segmented|uniform_1d|cuequivariance|tensor_product_uniform|fused_tp",
    "openequivariance": r"openequivariance|^(fixup_)?(forward|backward|double_backward)(_|\(|$)",
    "matrix products": r"gemm|gemv|cutlass|xmma|cublas|aten::(mm|bmm|addmm|baddbmm|matmul|dot)$|splitk",
    "gather and scatter": r"index|scatter|gather|embedding",
    "sorts": r"sort|radix|unique|bincount|cub::",
    "sums": r"reduce|aten::(sum|cumsum|mean|norm)",
    "joins and copies": r"memcpy|memset|cat|copy|fill|clone|contiguous|transpose|aten::(cat|stack|split)",
    "element by element": r"elementwise|vectorized|fused_|triton|aten::(mul|add|sub|div|pow|silu|sigmoid|sin|cos|exp)",
}
"""Patterns of names; the first that fits counts. OpenEquivariance names its kernels by the order of derivative."""
OTHERS, PYTHON = "others", "autograd and TorchScript"
OPERATION = r"^(aten::|pyg_cgconv::|_Contract|cuequivariance)"
"""What has work of its own on a CPU."""


def shares(call: Callable[[], object], device: torch.device) -> tuple[dict[str, float], float]:
    """Of each group the fraction of the time of all kernels, the largest first; and the milliseconds of kernels in a
    call."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    finished(call, device)
    with profile(activities=activities) as profiled:
        for _ in range(CALLS):
            finished(call, device)
    times: dict[str, float] = defaultdict(float)
    for event in profiled.events():
        times[group(event.name, on_gpu)] += _kernel_microseconds(event, on_gpu)
    total = sum(times.values())
    largest_first = sorted(times, key=lambda name: -times[name])
    return {name: times[name] / total for name in largest_first if times[name] > 0}, total / CALLS / 1e3


def group(name: str, on_gpu: bool) -> str:
    """The group of a kernel on a GPU, or of an event on a CPU."""
    if not on_gpu and not re.search(OPERATION, name):
        return PYTHON
    return next((of for of, pattern in GROUPS.items() if re.search(pattern, name, re.IGNORECASE)), OTHERS)


def _kernel_microseconds(event: Any, on_gpu: bool) -> float:
    """The time of a kernel, or of an operation on a CPU; 0 of other events, such as those that stand for several."""
    if getattr(event, "is_user_annotation", False) or (event.device_type == DeviceType.CUDA) != on_gpu:
        return 0.0
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total
