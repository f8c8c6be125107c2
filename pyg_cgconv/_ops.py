"""One torch operation for every order of derivative: its autograd formula is the operation itself with the next
contraction."""

from __future__ import annotations

from functools import cache

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
    if _is_plain(x, y, w):
        (out,) = _Contract.apply(problem, _FORWARD, edges, deterministic, x, y, w)
    else:
        needs_grad = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or w.requires_grad)
        by_source = edges.by_source if needs_grad and (deterministic or not x.is_cuda) else []
        (out,) = torch.ops.pyg_cgconv.contract(
            problem, _FORWARD, [x, y, w], edges.by_target, by_source, edges.sources, deterministic
        )
    return out


def _is_plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with memory, and nothing records or replaces the operations on them. `_Contract` serves
    them: the dispatcher's way to an operation with lists of tensors takes three times as long."""
    return (
        not torch.compiler.is_compiling()
        and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.maybe_current_level() is None
    )


class _Contract(torch.autograd.Function):
    """The operation as an autograd function, with itself as its derivative."""

    @staticmethod
    def forward(ctx, problem, spec, edges, deterministic, *operands):
        ctx.problem, ctx.spec, ctx.edges, ctx.deterministic = problem, spec, edges, deterministic
        ctx.save_for_backward(*operands)
        ctx.set_materialize_grads(False)
        if operands[0].is_cuda:
            by_source = edges.by_source if deterministic and spec != _FORWARD else ()
            contract = _contract_cuda
        else:
            by_source = edges.by_source if spec != _FORWARD else ()
            contract = _contract_cpu
        return tuple(contract(problem, spec, operands, edges.by_target, by_source, edges.sources, deterministic))

    @staticmethod
    def backward(ctx, *gradients):
        def contract(spec, operands):
            return _Contract.apply(ctx.problem, spec, ctx.edges, ctx.deterministic, *operands)

        needed = ctx.needs_input_grad[4:]
        return None, None, None, None, *_gradients(ctx.spec, ctx.saved_tensors, gradients, needed, contract)


def _gradients(spec: str, operands, gradients, needed, contract) -> list[Tensor | None]:
    """The gradient of each operand that needs one, by calling `contract(spec, operands)` with the derivative."""
    contraction = Contraction.parse(spec)
    cotangents = {name: g for name, g in zip(contraction.outputs, gradients, strict=True) if g is not None}
    wanted = tuple(name for name, need in zip(contraction.inputs, needed, strict=True) if need)
    derivative, names = contraction.derivative(tuple(cotangents), wanted)
    result = {}
    if derivative.outputs:
        values = dict(zip(contraction.inputs, operands, strict=True)) | {names[o]: g for o, g in cotangents.items()}
        outputs = contract(derivative.spec, [values[name] for name in derivative.inputs])
        result = dict(zip(derivative.outputs, outputs, strict=True))
    return [result.get(name) for name in contraction.inputs]


def _rows(by_target: list[Tensor], sources: int) -> dict[str, int]:
    """How many rows there are of each kind."""
    starts, _, edges, _, continuing = by_target
    return {"g": starts.shape[0] - 1 - continuing.shape[0], "x": sources, "y": edges.shape[0], "w": edges.shape[0]}


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
    rows = _rows(by_target, sources)
    outputs = {name: inputs[0].new_empty(_shape(problem, name, rows)) for name in contraction.outputs}
    threads = torch.get_num_threads()
    for owner, part in owned_passes(contraction):
        starts, _, edges, others, _ = _addresses(by_target if owner == "g" else by_source)
        cpu_launch.launch(
            problem,
            part,
            owner,
            _addresses(values[name] for name in part.inputs),
            _addresses(outputs[name] for name in part.outputs),
            (starts, edges, others),
            rows[owner],
            rows["y"],
            threads,
        )
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # numba's OpenMP pool sets that of the library which both may have loaded
    return _results(problem, outputs)


def _contract_cuda(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    device = inputs[0].get_device()
    if device != torch.cuda.current_device():
        with torch.cuda.device(device):
            return _contract_cuda(problem, spec, inputs, by_target, by_source, sources, deterministic)
    from cuda_kernels import cuda_launch  # the CUDA driver's bindings: not everybody has them

    cuda_launch.ensure_context(device)
    problem, contraction, passes = _cuda_passes(problem, spec, deterministic, device)
    inputs = [_aligned(value) for value in inputs]
    addresses = dict(zip(contraction.inputs, _addresses(inputs), strict=True))
    rows, outputs = _rows(by_target, sources), {}
    stream = torch._C._cuda_getCurrentRawStream(device)
    for run, zeroed in passes:
        part, lists = run.contraction, by_target if run.owner == "g" else by_source
        continuing, partials = lists[4].shape[0], []
        for name in part.outputs:
            make = inputs[0].new_zeros if name in zeroed else inputs[0].new_empty
            outputs[name] = make(_shape(problem, name, rows))
            is_owned = continuing and kind(name) == run.owner
            partials.append(make((continuing if is_owned else 0, problem.row(kind(name)).length)))
        run(
            [addresses[name] for name in part.inputs],
            [outputs[name].data_ptr() for name in part.outputs],
            _addresses(partials),
            _addresses(lists),
            rows[run.owner] + continuing,
            continuing,
            stream,
        )
    return _results(problem, {name: outputs[name] for name in contraction.outputs})


@cache
def _cuda_passes(problem: str, spec: str, deterministic: bool, device: int):
    """The problem, the contraction, and its passes with the outputs that must be zero before each."""
    from cuda_kernels import cuda_launch

    problem, contraction = _problems[problem], Contraction.parse(spec)
    cut = owned_passes(contraction) if deterministic else [("g", contraction)]
    return (
        problem,
        contraction,
        [(cuda_launch.Pass(problem, part, owner, device), zeroed_outputs(problem, part, owner)) for owner, part in cut],
    )


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied if its rows do not lie one after the other or not at a multiple of 16 bytes."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _addresses(tensors) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def _shape(problem: Problem, name: str, rows: dict[str, int]) -> tuple[int, int]:
    return rows[kind(name)], problem.row(kind(name)).length


def _blocks(problem: Problem, operand: str) -> list[tuple[int, int]]:
    return [(block.multiplicity, block.dim) for block in problem.row(kind(operand)).blocks]


def _contract_fake(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    problem, contraction = _problems[problem], Contraction.parse(spec)
    rows = _rows(by_target, sources)
    outputs = {name: inputs[0].new_empty(_shape(problem, name, rows)) for name in contraction.outputs}
    return _results(problem, outputs)


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, ctx.spec, operands, by_target, by_source, *ctx.options = inputs
    ctx.counts = len(operands), len(by_target)
    ctx.save_for_backward(*operands, *by_target, *by_source)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients):
    operands, lists = ctx.saved_tensors[: ctx.counts[0]], list(ctx.saved_tensors[ctx.counts[0] :])
    by_target, by_source = lists[: ctx.counts[1]], lists[ctx.counts[1] :]

    def contract(spec, operands):
        return torch.ops.pyg_cgconv.contract(ctx.problem, spec, operands, by_target, by_source, *ctx.options)

    result = _gradients(ctx.spec, operands, gradients, ctx.needs_input_grad[2], contract)
    return None, None, result, [None] * len(by_target), [None] * len(by_source), None, None


_library.impl("contract", _contract_cpu, "CPU")
_library.impl("contract", _contract_cuda, "CUDA")
torch.library.register_fake("pyg_cgconv::contract", _contract_fake, lib=_library)
torch.library.register_autograd("pyg_cgconv::contract", _backward, setup_context=_setup_context, lib=_library)
