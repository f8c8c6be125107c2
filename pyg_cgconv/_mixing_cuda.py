"""A mixing of channels on a GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from cuda_kernels import cuda_launch
from cuda_kernels.mixing import WEIGHTS
from cuda_kernels.staging import WIDE

from ._mixing import mixing
from ._ops import DTYPES


def run(irreps_in: str, irreps_out: str, part: str, left: Tensor, right: Tensor) -> Tensor:
    """What this part of the mixing makes of its two operands; no gradients are recorded."""
    device = left.get_device()
    if device != torch._C._cuda_getDevice():
        with torch.cuda.device(device):
            return run(irreps_in, irreps_out, part, left, right)
    cuda_launch.ensure_context(device)
    return _plan(irreps_in, irreps_out, part, left.dtype, device)(_aligned(left), _aligned(right))


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % WIDE == 0 else tensor.clone()


@cache
def _plan(irreps_in: str, irreps_out: str, part: str, dtype: torch.dtype, device: int) -> _Plan:
    return _Plan(irreps_in, irreps_out, part, dtype, device)


class _Plan:
    """All that does not change from call to call, with the tables on the device."""

    def __init__(self, irreps_in: str, irreps_out: str, part: str, dtype: torch.dtype, device: int):
        self.mixing, self.part, self.device = mixing(irreps_in, irreps_out), part, device
        table = self.mixing.table(part)
        self.tables = [torch.from_numpy(array).to(f"cuda:{device}") for array in table]
        self.addresses = [tensor.data_ptr() for tensor in self.tables]
        self.launch = cuda_launch.MixingLaunch(part, table, DTYPES[dtype], device)

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        nodes, length = left.shape
        out = left.new_empty(self.mixing.shape(self.part, nodes))
        other = (right if self.part == WEIGHTS else out).shape[1]
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        operands = left.data_ptr(), right.data_ptr(), out.data_ptr()
        self.launch(operands, self.addresses, nodes, length, other, stream)
        return out
