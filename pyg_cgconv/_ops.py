"""One torch operation for every order of derivative: its autograd formula is the operation itself with the next
contraction."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from cuda_kernels.polynomial import FORWARD, Contraction, kind
from cuda_kernels.problem import Problem

from ._edges import SortedEdges

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_FORWARD = FORWARD.spec
_problems: dict[str, Problem] = {}
_library = torch.library.Library("pyg_cgconv", "DEF")


def define(
    schema: str, runs: dict[str, Callable], fake: Callable, gradients: Callable, setup_context: Callable
) -> None:
    """An operation of this library: ``runs`` compute it on a CPU, on CUDA; ``fake`` gives its result's shape."""
    _library.define(schema)
    for key, run in runs.items():
        _library.impl(schema.split("(")[0], run, key)
    name = f"pyg_cgconv::{schema.split('(')[0]}"
    torch.library.register_fake(name, fake, lib=_library)
    torch.library.register_autograd(name, gradients, setup_context=setup_context, lib=_library)


def register(problem: Problem) -> dict[torch.dtype, str]:
    """Make the problem known to the operation, in each precision; returns the names by which it is called."""
    variants = {dtype: problem.with_dtype(name) for dtype, name in DTYPES.items()}
    _problems.update({variant.key: variant for variant in variants.values()})
    return {dtype: variant.key for dtype, variant in variants.items()}


class WithProblem:
    """A module whose ``problem`` (None if it has no kernels) the operation knows, also that of a copy in another
    process."""

    problem: Problem | None

    def _register(self) -> None:
        self._problem_names = {} if self.problem is None else register(self.problem)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._register()


def registered(name: str) -> Problem:
    """The problem that :func:`register` gave this name."""
    return _problems[name]


def convolve(problem: str, x: Tensor, y: Tensor, w: Tensor, edges: SortedEdges, deterministic: bool) -> Tensor:
    """out_i = sum over edges j->i of CG(x_j, y_e; w_e): differentiable any number of times.

    Args:
        problem: its registered name, for the inputs' dtype. Its rows give the shapes: x (edges.sources, x.length),
            y (E, y.length), w (E, w.length), or (w.length,) if it shares its weights. One dtype, one device.
        deterministic: no atomic additions on a GPU (there are none on a CPU).
    """
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or w.requires_grad)
    if not _is_plain(x, y, w):
        by_source = edges.by_source if needs_grad and (deterministic or not x.is_cuda) else []
        (out,) = torch.ops.pyg_cgconv.contract(
            problem, _FORWARD, [x, y, w], edges.by_target, by_source, edges.sources, deterministic
        )
        return out
    contract = _record if needs_grad else _contract
    (out,) = contract(_problems[problem], FORWARD, edges, deterministic, x, y, w)
    return out


def _is_plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with memory, and nothing records or replaces the operations on them. `_Contract` serves
    them: the dispatcher's way to an operation with lists of tensors takes longer than a small molecule's kernel."""
    return (
        not torch.compiler.is_compiling()
        and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.maybe_current_level() is None
    )


def _contract(problem: Problem, contraction: Contraction, edges: SortedEdges, deterministic: bool, *operands: Tensor):
    backward = contraction is not FORWARD
    if operands[0].is_cuda:
        lists = edges.by_target, edges.by_source if backward and deterministic else ()
    else:
        lists = edges.by_target, edges.by_source if backward else ()
    return tuple(run(problem, contraction, operands, lists, edges.sources, deterministic))


class _Contract(torch.autograd.Function):
    """The operation as an autograd function, with itself as its derivative."""

    @staticmethod
    def forward(ctx, problem, contraction, edges, deterministic, *operands):
        ctx.call = problem, contraction, edges, deterministic
        ctx.save_for_backward(*operands)
        ctx.set_materialize_grads(False)
        return _contract(problem, contraction, edges, deterministic, *operands)

    @staticmethod
    def backward(ctx, *gradients):
        problem, contraction, edges, deterministic = ctx.call

        def contract(derivative, operands):
            call = _record if torch.is_grad_enabled() else _contract
            return call(problem, derivative, edges, deterministic, *operands)

        needed = ctx.needs_input_grad[4:]
        return None, None, None, None, *_gradients(contraction, ctx.saved_tensors, gradients, needed, contract)


_record = super(torch.autograd.Function, _Contract).apply  # not through functorch, whose tensors are never plain


def _gradients(contraction: Contraction, operands, gradients, needed, contract) -> list[Tensor | None]:
    """The gradient of each operand that needs one, by calling `contract(derivative, operands)`."""
    given = tuple(g is not None for g in gradients)
    derivative, sources, places = _derivative(contraction, given, tuple(needed))
    if not derivative.outputs:
        return [None] * len(places)
    values = (*operands, *gradients)
    outputs = contract(derivative, [values[n] for n in sources])
    return [None if n is None else outputs[n] for n in places]


@cache
def _derivative(contraction: Contraction, given: tuple[bool, ...], needed: tuple[bool, ...]):
    """The derivative by the inputs that need a gradient, where only `given` outputs have one.

    Also, for each of its inputs, the place among the contraction's inputs and gradients, and for each of the
    contraction's inputs the place of its gradient.
    """
    cotangents = tuple(name for name, has in zip(contraction.outputs, given, strict=True) if has)
    wanted = tuple(name for name, need in zip(contraction.inputs, needed, strict=True) if need)
    derivative, names = contraction.derivative(cotangents, wanted)
    known = [*contraction.inputs, *(names.get(output) for output in contraction.outputs)]
    sources = [len(known) - 1 - known[::-1].index(name) for name in derivative.inputs]
    outputs = {name: n for n, name in enumerate(derivative.outputs)}
    return derivative, sources, [outputs.get(name) for name in contraction.inputs]


def run(problem: Problem, contraction: Contraction, operands, lists, sources: int, deterministic: bool) -> list[Tensor]:
    """The outputs of a contraction; no gradients are recorded.

    Args:
        operands: in the order of the contraction's inputs.
        lists: of the edges, by target and by source, as in `SortedEdges`.
    """
    if operands[0].is_cuda:
        outputs = _device("cuda").contract(problem, contraction, operands, lists, sources, deterministic)
    else:
        outputs = _device("cpu").contract(problem, contraction, operands, lists, sources)
    return _summed(problem, contraction, outputs)


@cache
def _device(name: str):
    """The module that runs contractions there: on a GPU nobody pays for importing numba, and on a CPU nobody needs the
    CUDA driver's bindings."""
    return import_module(f"._contract_{name}", __package__)


def _summed(problem: Problem, contraction: Contraction, outputs: list[Tensor]) -> list[Tensor]:
    """The outputs, gradients of shared weights summed over the edges."""
    if not problem.shared_weights:
        return outputs
    return [t.sum(0) if kind(name) == "w" else t for name, t in zip(contraction.outputs, outputs, strict=True)]


def _contract_real(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    return run(_problems[problem], Contraction.parse(spec), inputs, (by_target, by_source), sources, deterministic)


def _contract_fake(problem, spec, inputs, by_target, by_source, sources, deterministic) -> list[Tensor]:
    problem, contraction = _problems[problem], Contraction.parse(spec)
    starts, _, edges, _, continuing = by_target
    rows = {"g": starts.shape[0] - 1 - continuing.shape[0], "x": sources, "y": edges.shape[0], "w": edges.shape[0]}
    shapes = [(rows[kind(name)], problem.row(kind(name)).length) for name in contraction.outputs]
    return _summed(problem, contraction, [inputs[0].new_empty(shape) for shape in shapes])


def _setup_context(ctx, inputs, output) -> None:
    ctx.problem, ctx.spec, operands, by_target, by_source, *ctx.options = inputs
    ctx.counts = len(operands), len(by_target)
    ctx.save_for_backward(*operands, *by_target, *by_source)
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients):
    operands, lists = ctx.saved_tensors[: ctx.counts[0]], list(ctx.saved_tensors[ctx.counts[0] :])
    by_target, by_source = lists[: ctx.counts[1]], lists[ctx.counts[1] :]

    def contract(derivative, operands):
        return torch.ops.pyg_cgconv.contract(ctx.problem, derivative.spec, operands, by_target, by_source, *ctx.options)

    result = _gradients(Contraction.parse(ctx.spec), operands, gradients, ctx.needs_input_grad[2], contract)
    return None, None, result, [None] * len(by_target), [None] * len(by_source), None, None


define(
    "contract(str problem, str spec, Tensor[] inputs, Tensor[] by_target, Tensor[] by_source, SymInt sources, "
    "bool deterministic) -> Tensor[]",
    {"CPU": _contract_real, "CUDA": _contract_real},
    _contract_fake,
    _backward,
    _setup_context,
)
