"""One torch operation for every order of derivative: its autograd formula is the operation itself with the next contraction."""

from __future__ import annotations

import torch
from cuda_kernels import cpu_launch
from cuda_kernels.polynomial import FORWARD, Contraction, kind
from cuda_kernels.problem import Problem
from cuda_kernels.schedule import owned_passes
from torch import Tensor

from ._edges import SortedEdges
from ._layout import to_ir_mul, to_mul_ir

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_problems: dict[str, Problem] = {}
_library = torch.library.Library("pyg_cgconv", "DEF")
_library.define(
    "contract(str problem, str spec, Tensor[] inputs, Tensor[] by_target, Tensor[] by_source, SymInt sources) -> Tensor[]"
)


def convolve(problem: Problem, x: Tensor, y: Tensor, w: Tensor, edges: SortedEdges, deterministic: bool) -> Tensor:
    """out_i = sum over edges j->i of CG(x_j, y_e; w_e): differentiable any number of times.

    Args:
        x: (edges.sources, problem.x.length); y: (E, problem.y.length); w: (E, problem.w.length), or (problem.w.length,) if the
            problem shares its weights. One dtype, one device.
    """
    problem = problem.with_dtype(DTYPES[x.dtype])
    _problems[problem.key] = problem
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or w.requires_grad)
    by_source = edges.by_source if needs_grad and not x.is_cuda else []
    return torch.ops.pyg_cgconv.contract(problem.key, FORWARD.spec, [x, y, w], edges.by_target, by_source, edges.sources)[0]


def _empty_outputs(problem: Problem, contraction: Contraction, like: Tensor, by_target: list[Tensor], sources: int) -> list[Tensor]:
    edges = by_target[2].shape[0]
    rows = {"g": by_target[0].shape[0] - 1, "x": sources, "y": edges, "w": edges}
    return [like.new_empty(rows[kind(output)], problem.row(kind(output)).length) for output in contraction.outputs]


def _shared_weight_sums(problem: Problem, contraction: Contraction, outputs: list[Tensor]) -> list[Tensor]:
    """Gradients of shared weights are summed over the edges."""
    if not problem.shared_weights:
        return outputs
    return [o.sum(0) if kind(name) == "w" else o for name, o in zip(contraction.outputs, outputs, strict=True)]


def _contract_cpu(problem, spec, inputs, by_target, by_source, sources) -> list[Tensor]:
    given, contraction = _problems[problem], Contraction.parse(spec)
    problem = given.component_major()
    values = {
        name: to_ir_mul(value, _blocks(given, name)).contiguous() if given != problem and kind(name) in "gx" else value.contiguous()
        for name, value in zip(contraction.inputs, inputs, strict=True)
    }
    outputs = dict(
        zip(contraction.outputs, _empty_outputs(problem, contraction, inputs[0], by_target, sources), strict=True)
    )
    for owner, part in owned_passes(contraction):
        first, edges, others = by_target if owner == "g" else by_source
        cpu_launch.launch(
            problem,
            part,
            owner,
            tuple(values[name].data_ptr() for name in part.inputs),
            tuple(outputs[name].data_ptr() for name in part.outputs),
            (first.data_ptr(), edges.data_ptr(), others.data_ptr()),
            len(first) - 1,
            torch.get_num_threads(),
        )
    results = [
        to_mul_ir(value, _blocks(given, name)) if given != problem and kind(name) in "gx" else value
        for name, value in outputs.items()
    ]
    return _shared_weight_sums(given, contraction, results)


def _blocks(problem: Problem, operand: str) -> list[tuple[int, int]]:
    return [(block.multiplicity, block.dim) for block in problem.row(kind(operand)).blocks]


def _contract_fake(problem, spec, inputs, by_target, by_source, sources) -> list[Tensor]:
    problem, contraction = _problems[problem], Contraction.parse(spec)
    outputs = _empty_outputs(problem, contraction, inputs[0], by_target, sources)
    return _shared_weight_sums(problem, contraction, outputs)


def _setup_context(ctx, inputs, output) -> None:
    problem, spec, operands, by_target, by_source, sources = inputs
    ctx.problem, ctx.spec, ctx.sources, ctx.counts = problem, spec, sources, (len(operands), len(by_target), len(by_source))
    ctx.save_for_backward(*operands, *by_target, *by_source)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients):
    n, t, s = ctx.counts
    operands, by_target, by_source = ctx.saved_tensors[:n], ctx.saved_tensors[n : n + t], ctx.saved_tensors[n + t :]
    contraction = Contraction.parse(ctx.spec)
    cotangents = {name: g for name, g in zip(contraction.outputs, gradients, strict=True) if g is not None}
    wanted = [name for name, needed in zip(contraction.inputs, ctx.needs_input_grad[2], strict=True) if needed]
    derivative, names = contraction.derivative(cotangents, wanted)
    result = {}
    if derivative.outputs:
        values = dict(zip(contraction.inputs, operands, strict=True)) | {names[o]: g for o, g in cotangents.items()}
        outputs = torch.ops.pyg_cgconv.contract(
            ctx.problem, derivative.spec, [values[i] for i in derivative.inputs], list(by_target), list(by_source), ctx.sources
        )
        result = dict(zip(derivative.outputs, outputs, strict=True))
    return None, None, [result.get(name) for name in contraction.inputs], [None] * t, [None] * s, None


_library.impl("contract", _contract_cpu, "CPU")
torch.library.register_fake("pyg_cgconv::contract", _contract_fake, lib=_library)
torch.library.register_autograd("pyg_cgconv::contract", _backward, setup_context=_setup_context, lib=_library)
