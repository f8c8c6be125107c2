"""A contraction on a GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from cuda_kernels import cuda_launch
from cuda_kernels.polynomial import Contraction, kind
from cuda_kernels.problem import Problem
from cuda_kernels.schedule import owned_passes, zeroed_outputs
from cuda_kernels.staging import WIDE


def contract(
    problem: Problem, contraction: Contraction, inputs, lists, sources: int, deterministic: bool
) -> list[Tensor]:
    """The contraction's outputs, from tensors in the order of its inputs; no gradients are recorded.

    Args:
        lists: by target and by source, as in `SortedEdges`; the second is only read if `deterministic`.
    """
    device = inputs[0].get_device()
    if device != torch._C._cuda_getDevice():
        with torch.cuda.device(device):
            return contract(problem, contraction, inputs, lists, sources, deterministic)
    cuda_launch.ensure_context(device)
    return _plan(problem, contraction, deterministic, device)(inputs, lists, sources)


@cache
def _plan(problem: Problem, contraction: Contraction, deterministic: bool, device: int) -> _Plan:
    return _Plan(problem, contraction, deterministic, device)


class _Plan:
    """All that does not change from call to call. A small molecule's kernel takes less time than the call before it."""

    def __init__(self, problem: Problem, contraction: Contraction, deterministic: bool, device: int):
        self.device, self.outputs, self.passes = device, contraction.outputs, []
        for owner, part in owned_passes(contraction) if deterministic else [("g", contraction)]:
            run = cuda_launch.Pass(problem, part, owner, device)
            reads = [contraction.inputs.index(name) for name in part.inputs]
            zeroed = zeroed_outputs(problem, part, owner)
            writes = [(name, kind(name), problem.row(kind(name)).length, name in zeroed) for name in part.outputs]
            self.passes.append((run, owner, reads, writes))

    def __call__(self, inputs, lists, sources: int) -> list[Tensor]:
        inputs = [t if t.is_contiguous() else t.contiguous() for t in inputs]
        addresses = [t.data_ptr() for t in inputs]
        if any(address % WIDE for address in addresses):
            inputs = [t if t.data_ptr() % WIDE == 0 else t.clone() for t in inputs]
            addresses = [t.data_ptr() for t in inputs]
        starts, _, edges, _, continuing = lists[0]
        count = edges.shape[0]
        rows = {"g": starts.shape[0] - 1 - continuing.shape[0], "x": sources, "y": count, "w": count}
        empty, zeros = inputs[0].new_empty, inputs[0].new_zeros
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        outputs: dict[str, Tensor] = {}
        for run, owner, reads, writes in self.passes:
            listed = lists[owner == "x"]
            further = listed[4].shape[0]
            partials = []
            for name, of, length, zeroed in writes:
                make = zeros if zeroed else empty
                outputs[name] = make((rows[of], length))
                if further and of == owner:
                    partials.append(make((further, length)))
            run(
                [addresses[n] for n in reads],
                [outputs[name].data_ptr() for name, *_ in writes],
                [t.data_ptr() for t in partials],
                [t.data_ptr() for t in listed],
                rows[owner] + further,
                further,
                stream,
            )
        return [outputs[name] for name in self.outputs]
