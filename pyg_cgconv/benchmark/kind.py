"""What a kind of problem says of itself. The rest of the benchmark knows no more of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from e3nn import o3
from torch import Tensor

from cuda_kernels.contraction import backward, double_backward, forward

from .._torch import keep_compiled_graphs
from .graphs import Graph

ORDERS = {"forward": forward, "backward": backward, "double_backward": double_backward}

NODE, SITE, ALL = "node", "site", "all"
"""What has a row of its own: each node; each edge, or each row where there is no graph; all of them one row."""


class Missing(RuntimeError):
    """A contender cannot run a problem; the message says why."""


class Operand(NamedTuple):
    """An input or the output: what has a row of it, and the irreps of a row. Weights are scalars."""

    of: str
    irreps: o3.Irreps

    def shape(self, graph: Graph) -> tuple[int, ...]:
        rows = {NODE: (graph.nodes,), SITE: (graph.sites,), ALL: ()}
        return (*rows[self.of], self.irreps.dim)


def weights(of: str, number: int) -> Operand:
    return Operand(of, o3.Irreps([(number, (0, 1))]))


class Form(NamedTuple):
    """The inputs that a contender gets; one that does not know the layout takes another."""

    layout: str
    dtype: torch.dtype
    device: torch.device


def _as_they_are(*inputs: Tensor) -> Sequence[Tensor]:
    return inputs


@dataclass(frozen=True)
class Contender:
    """How this project or a peer computes a problem.

    Attributes:
        run: differentiable twice, of the arranged inputs.
        layout: of inputs and output.
        arrange: from the inputs in this layout and e3nn's order of weights to what `run` takes. Not timed.
        how: which of its ways a peer goes, where it has several.
    """

    run: Callable[..., Tensor]
    layout: str = "mul_ir"
    arrange: Callable[..., Sequence[Tensor]] = _as_they_are
    how: str = ""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What makes coefficients or parameters of torch's default dtype makes them of this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def compiled(module: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The module, or function, by torch.compile, with a backward that can be called again and again."""
    keep_compiled_graphs()
    return torch.compile(module)


class Kind(ABC):
    """A problem on a graph, or on rows.

    Attributes:
        what: the kind, in words.
        inputs, output: its operands.
        has_forces: whether the second input is that of edges, through which forces pass: the kind has training steps.
    """

    inputs: tuple[Operand, ...]
    output: Operand
    what: ClassVar[str]
    has_forces: ClassVar[bool] = False

    def __init__(self, graph: Graph):
        self.graph = graph

    @abstractmethod
    def on(self, graph: Graph) -> Kind:
        """The same problem on another graph."""

    @abstractmethod
    def multiply_adds(self) -> dict[str, int]:
        """Those of this project, for each order."""

    @abstractmethod
    def ours(self, form: Form) -> Contender: ...

    @abstractmethod
    def e3nn(self, form: Form, *, compiled: bool = False) -> Contender:
        """It takes mul_ir, of any device and dtype."""

    def reference(self, form: Form) -> Contender:
        """What all others are compared with, in float64. It takes mul_ir, of any device and dtype, and needs nothing
        that has to be installed."""
        return self.e3nn(form)

    def cuequivariance(self, form: Form, *, method: str | None = None) -> Contender:
        """By the method, or by the fastest one that is known."""
        raise Missing(f"cuequivariance has no {self.what}")

    def openequivariance(self, form: Form, *, deterministic: bool = False) -> Contender:
        raise Missing(f"openequivariance has no {self.what}")

    def numbers(self) -> tuple[int, int]:
        """How many numbers all inputs have, and how many the output has: each is counted once, however often it is
        read."""
        return sum(_size(operand.shape(self.graph)) for operand in self.inputs), _size(self.output.shape(self.graph))


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
