"""One torch operation for every order of derivative: its autograd formula is the operation itself with the next
contraction."""

from __future__ import annotations

import torch
from torch import Tensor

from cuda_kernels.polynomial import FORWARD, Contraction, kind
from cuda_kernels.problem import Problem
from cuda_kernels.schedule import owned_passes, zeroed_outputs

from ._edges import SortedEdges
from ._layout import to_ir_mul

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_FORWARD = FORWARD.spec
_problems: dict[str, Problem] = {}
_library = torch.library.Library("pyg_cgconv", "DEF")
_library.define(
    "contract(str problem, str spec, Tensor[] inputs, Tensor[] by_target, Tensor[] by_source, SymInt sources, "
    "bool deterministic) -> Tensor[]"
)


def register(problem: Problem) -> dict[torch.dtype, str]:
    """Make the problem known to the operation, in each precision; returns the names by which it is called."""
    variants = {dtype: problem.with_dtype(name) for dtype, name in DTYPES.items()}
    _problems.update({variant.key: variant for variant in variants.values()})
    return {dtype: variant.key for dtype, variant in variants.items()}


def convolve(problem: str, x: Tensor, y: Tensor, w: Tensor, edges: SortedEdges, deterministic: bool) -> Tensor:
    """out_i = sum over edges j->i of CG(x_j, y_e; w_e): differentiable any number of times.

    Args:
        problem: its registered name, for the inputs' dtype. Its rows give the shapes: x (edges.sources, x.length),
            y (E, y.length), w (E, w.length), or (w.length,) if it shares its weights. One dtype, one device.
        deterministic: no atomic additions on a GPU (there are none on a CPU).
    """
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or w.requires_grad)
    by_source = edges.by_source if needs_grad and (deterministic or not x.is_cuda) else []
    (out,) = torch.ops.pyg_cgconv.contract(
        problem, _FORWARD, [x, y, w], edges.by_target, by_source, edges.sources, deterministic
    )
    return out


def _output_shapes(
    problem: Problem, contraction: Contraction, by_target: list[Tensor], sources: int
) -> dict[str, tuple[int, int]]:
    edges = by_target[2].shape[0]
    rows = {"g": by_target[0].shape[0] - 1, "x": sources, "y": edges, "w": edges}
    return {output: (rows[kind(output)], problem.row(kind(output)).length) for output in contraction.outputs}


def _results(problem: Problem, outputs: dict[str, Tensor]) -> list[Tensor]:
    """Gradients of shared weights are summed over the edges."""
    return [value.sum(0) if problem.shared_weights and kind(name) == "w" else value for name, value in outputs.items()]


def _contract_cpu(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    from cuda_kernels import cpu_launch  # numba: a second that users of a GPU do not pay

    problem, contraction = _problems[problem], Contraction.parse(spec)
    compact = problem is problem.component_major()
    values = {
        name: value if compact or kind(name) in "yw" else to_ir_mul(value, _blocks(problem, name))
        for name, value in zip(contraction.inputs, inputs, strict=True)
    }
    values = {name: value.contiguous() for name, value in values.items()}
    shapes = _output_shapes(problem, contraction, by_target, sources)
    outputs = {name: inputs[0].new_empty(shape) for name, shape in shapes.items()}
    threads = torch.get_num_threads()
    for owner, part in owned_passes(contraction):
        lists = by_target if owner == "g" else by_source
        cpu_launch.launch(
            problem,
            part,
            owner,
            *_arguments(part, values, outputs, lists),
            lists[2].shape[0],
            threads,
        )
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # numba's OpenMP pool sets that of the library which both may have loaded
    return _results(problem, outputs)


def _contract_cuda(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    from cuda_kernels import cuda_launch  # the CUDA driver's bindings: not everybody has them

    problem, contraction = _problems[problem], Contraction.parse(spec)
    values = {name: _aligned(value) for name, value in zip(contraction.inputs, inputs, strict=True)}
    shapes = _output_shapes(problem, contraction, by_target, sources)
    outputs = {}
    device = inputs[0].device
    with torch.cuda.device(device):
        for owner, part in owned_passes(contraction) if deterministic else [("g", contraction)]:
            lists = by_target if owner == "g" else by_source
            copies = cuda_launch.feature_copies(problem, part, owner, device.index) if deterministic else 1
            zeroed = zeroed_outputs(problem, part, owner)
            for name in part.outputs:
                make = inputs[0].new_zeros if name in zeroed else inputs[0].new_empty
                outputs[name] = make((copies, *shapes[name]) if kind(name) == "y" else shapes[name])
            cuda_launch.launch(
                problem,
                part,
                owner,
                *_arguments(part, values, outputs, lists),
                by_target[2].shape[0] * problem.y.length * problem.item_bytes if deterministic else 0,
                device.index,
                torch._C._cuda_getCurrentRawStream(device.index),
            )
    for name in outputs:
        if kind(name) == "y":
            outputs[name] = outputs[name].sum(0) if deterministic else outputs[name][0]
    return _results(problem, {name: outputs[name] for name in contraction.outputs})


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied if its rows do not lie one after the other or not at a multiple of 16 bytes."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _arguments(part: Contraction, values: dict, outputs: dict, lists: list[Tensor]) -> tuple:
    """Addresses of a pass's inputs, outputs and edge lists, and the nodes that own its rows."""
    inputs = _addresses(values[name] for name in part.inputs)
    return inputs, _addresses(outputs[name] for name in part.outputs), _addresses(lists), lists[0].shape[0] - 1


def _addresses(tensors) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def _blocks(problem: Problem, operand: str) -> list[tuple[int, int]]:
    return [(block.multiplicity, block.dim) for block in problem.row(kind(operand)).blocks]


def _contract_fake(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    problem, contraction = _problems[problem], Contraction.parse(spec)
    shapes = _output_shapes(problem, contraction, by_target, sources)
    return _results(problem, {name: inputs[0].new_empty(shape) for name, shape in shapes.items()})


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, ctx.spec, operands, by_target, by_source, *ctx.options = inputs
    ctx.counts = len(operands), len(by_target)
    ctx.save_for_backward(*operands, *by_target, *by_source)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients):
    operands, lists = ctx.saved_tensors[: ctx.counts[0]], ctx.saved_tensors[ctx.counts[0] :]
    by_target, by_source = list(lists[: ctx.counts[1]]), list(lists[ctx.counts[1] :])
    contraction = Contraction.parse(ctx.spec)
    cotangents = {name: g for name, g in zip(contraction.outputs, gradients, strict=True) if g is not None}
    wanted = tuple(name for name, needed in zip(contraction.inputs, ctx.needs_input_grad[2], strict=True) if needed)
    derivative, names = contraction.derivative(tuple(cotangents), wanted)
    result = {}
    if derivative.outputs:
        values = dict(zip(contraction.inputs, operands, strict=True)) | {names[o]: g for o, g in cotangents.items()}
        outputs = torch.ops.pyg_cgconv.contract(
            ctx.problem,
            derivative.spec,
            [values[name] for name in derivative.inputs],
            by_target,
            by_source,
            *ctx.options,
        )
        result = dict(zip(derivative.outputs, outputs, strict=True))
    no_gradients = [None] * len(by_target), [None] * len(by_source), None, None
    return None, None, [result.get(name) for name in contraction.inputs], *no_gradients


_library.impl("contract", _contract_cpu, "CPU")
_library.impl("contract", _contract_cuda, "CUDA")
torch.library.register_fake("pyg_cgconv::contract", _contract_fake, lib=_library)
torch.library.register_autograd("pyg_cgconv::contract", _backward, setup_context=_setup_context, lib=_library)
