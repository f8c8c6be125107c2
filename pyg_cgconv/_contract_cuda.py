"""A contraction on a GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from cuda_kernels import cuda_launch
from cuda_kernels.polynomial import Contraction, kind
from cuda_kernels.problem import Problem
from cuda_kernels.schedule import owned_passes, zeroed_outputs


def contract(
    problem: Problem, contraction: Contraction, inputs, lists, sources: int, deterministic: bool
) -> list[Tensor]:
    """The contraction's outputs, from tensors in the order of its inputs; no gradients are recorded.

    Args:
        lists: by target and by source, as in `SortedEdges`; the second is only read if `deterministic`.
    """
    device = inputs[0].get_device()
    if device != torch.cuda.current_device():
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
            writes = [
                (name, kind(name), problem.row(kind(name)).length, torch.zeros if name in zeroed else torch.empty)
                for name in part.outputs
            ]
            self.passes.append((run, owner, reads, writes))

    def __call__(self, inputs, lists, sources: int) -> list[Tensor]:
        inputs = [t if t.is_contiguous() and not t.data_ptr() % 16 else _aligned(t) for t in inputs]
        starts, _, edges, _, continuing = lists[0]
        count = edges.shape[0]
        rows = {"g": starts.shape[0] - 1 - continuing.shape[0], "x": sources, "y": count, "w": count}
        options = {"dtype": inputs[0].dtype, "device": inputs[0].device}
        addresses = [t.data_ptr() for t in inputs]
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        outputs: dict[str, Tensor] = {}
        for run, owner, reads, writes in self.passes:
            listed = lists[owner == "x"]
            further = listed[4].shape[0]
            partials = []
            for name, of, length, make in writes:
                outputs[name] = make((rows[of], length), **options)
                if further and of == owner:
                    partials.append(make((further, length), **options))
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


def _aligned(tensor: Tensor) -> Tensor:
    """A copy whose rows lie one after the other, from a multiple of 16 bytes on."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor
