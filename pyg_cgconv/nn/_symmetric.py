"""Symmetric contraction: products of a node's features with themselves, weights by element."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor, nn

from cuda_kernels.contraction import forward
from cuda_kernels.polynomial import Element
from cuda_kernels.powers import powers
from cuda_kernels.problem import Problem

from .._checks import check_choice
from .._functions import without_autocast
from .._torch import NotScripted, refuse_torchscript, untransformed
from ..ops import DTYPES, checks_on_host, contract, sorted_groups
from ..tensor_product import IrrepsLike, coefficients_of_weights, describe, irreps_of, paths_of, problem_of

LAYOUTS = ("mul_ir", "ir_mul", "mul_joined")
BACKENDS = ("auto", "reference")
MOST_L = {1: 4, 2: 4, 3: 4, 4: 2}
"""For each correlation the largest l of features whose polynomials kernels are generated for."""


class SymmetricContraction(NotScripted, nn.Module):
    r"""All equivariant products of up to ``correlation`` features of a node, channel by channel, with weights by
    element: MACE's contraction (Batatia et al., `Higher order equivariant message passing neural networks
    <https://arxiv.org/abs/2206.07697>`_).

    .. math::
        y_{u L M} = \sum_{\nu=1}^{N} \sum_{p} w^{(z)}_{\nu L p u}
            \sum_{m_1 \ldots m_\nu} U^{\nu L p}_{M, m_1 \ldots m_\nu} \, x_{u m_1} \cdots x_{u m_\nu}

    for a node of element z. The sum over p goes over linearly independent products. MACE has more, many of which are
    equal because factors commute: its own are sums of these. The weights of an element are combined into coefficients
    of monomials once a call, not for each node. A generated kernel computes with these, and so do all derivatives.

    Args:
        irreps_in: Features; all of one multiplicity, each irrep once, l up to 4 (up to 2 with correlation 4).
        irreps_out: Wanted features, of the same multiplicity. One that has no products is zero.
        correlation: The most factors of a product, N: 1 to 4.
        num_elements: Number of elements Z.
        layout: Order of the numbers in a row: "mul_ir" (e3nn's) or "ir_mul" (a component's channels together, the
            fastest). With "mul_joined", a channel's components of all irreps are together in the input, as in MACE,
            and the output is "mul_ir".
        backend: "auto", or "reference" for plain PyTorch.

    Attributes:
        weight: (num_elements, paths, multiplicity), paths by irrep of the output, then by number of factors. They begin
            normally distributed, divided by the number of paths that have the same output and number of factors.

    Shapes:
        - **x:** (n, irreps_in.dim), float32 or float64; with layout "mul_joined" also (n, multiplicity, components)
        - **element:** (n,), int64 or int32, below num_elements
        - **output:** (n, irreps_out.dim)

    Raises:
        ValueError: multiplicities differ, no product is wanted, correlation or l is too large, a shape, a device or an
            element is wrong.
        TypeError: a dtype is.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        correlation: int = 3,
        num_elements: int = 1,
        *,
        layout: str = "mul_ir",
        backend: str = "auto",
    ):
        super().__init__()
        self.irreps_in, self.irreps_out = irreps_of("irreps_in", irreps_in), irreps_of("irreps_out", irreps_out)
        check_choice("layout", layout, LAYOUTS)
        check_choice("backend", backend, BACKENDS)
        self.correlation, self.num_elements, self.layout, self.backend = correlation, num_elements, layout, backend
        self.channels = checked_channels(self.irreps_in, self.irreps_out, correlation)
        if not isinstance(num_elements, int) or num_elements < 1:
            raise ValueError(f"num_elements: expected a number of elements, 1 or more, got {num_elements!r}")
        layouts = layout, "mul_ir" if layout == "mul_joined" else layout
        self._dim = self.irreps_in.dim  # torch.compile cannot trace e3nn's irreps
        self._description = describe.polynomial(self.irreps_in, self.irreps_out, correlation, layouts)
        self.paths = paths_of(self.irreps_in, self.irreps_out, correlation)
        self.weight = nn.Parameter(torch.empty(num_elements, sum(map(sum, self.paths)), self.channels))
        self.register_buffer("_combined", self._made_combined(), persistent=False)
        self.reset_parameters()

    def _made_combined(self) -> Tensor:
        """What makes coefficients of weights, rounded once to their dtype."""
        return coefficients_of_weights(self.irreps_in, self.irreps_out, self.correlation).to(self.weight)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._combined = self._made_combined()
        return self

    def reset_parameters(self) -> None:
        """Draw new weights."""
        with torch.no_grad():
            start = 0
            for count in (count for by_degree in self.paths for count in by_degree):
                self.weight[:, start : start + count].normal_().div_(max(1, count))
                start += count

    def forward(self, x: Tensor, element: Tensor) -> Tensor:
        refuse_torchscript(self)
        return self._contracted(x, element, self.weight)

    @without_autocast
    def _contracted(self, x: Tensor, element: Tensor, weight: Tensor) -> Tensor:
        if self.layout == "mul_joined" and isinstance(x, Tensor) and x.dim() == 3:
            x = x.flatten(1)
        check_rows(x, element, self._dim, weight)
        coefficients = (self._combined.T @ weight).flatten(1)
        return contract_polynomial(self._description, x, element, coefficients, self.num_elements, self.backend)

    def extra_repr(self) -> str:
        return (
            f"{self.irreps_in} -> {self.irreps_out}, correlation={self.correlation}, num_elements={self.num_elements}, "
            f"layout={self.layout!r}"
        )


def contract_polynomial(
    description: str, x: Tensor, element: Tensor, coefficients: Tensor, elements: int, backend: str = "auto"
) -> Tensor:
    """The polynomial of each node's features.

    Args:
        description: by `describe.polynomial`.
        x: (n, length of a row).
        element: (n,).
        coefficients: (elements, entries * channels), each entry's channels together.
    """
    if backend == "reference":
        return _Reference(problem_of(description, DTYPES[x.dtype]))(x, coefficients[element.long()])
    return contract(description, (coefficients, x), sorted_groups(element, elements))


def checked_channels(irreps_in: o3.Irreps, irreps_out: o3.Irreps, correlation: int) -> int:
    """The multiplicity of all irreps.

    Raises:
        ValueError: it is not one, an irrep occurs twice, or such polynomials have no kernel.
    """
    if not isinstance(correlation, int) or isinstance(correlation, bool) or correlation not in MOST_L:
        raise ValueError(f"correlation: expected 1 to {max(MOST_L)}, got {correlation!r}")
    for name, irreps in (("irreps_in", irreps_in), ("irreps_out", irreps_out)):
        if not irreps.dim:
            raise ValueError(f"{name}: expected irreps such as '16x0e+16x1o', got {str(irreps)!r}")
    name = "irreps_in" if len({multiplicity for multiplicity, _ in irreps_in}) > 1 else "irreps_out"
    if len({multiplicity for multiplicity, _ in irreps_in + irreps_out}) > 1:
        raise ValueError(
            f"{name}: all irreps must have one multiplicity, got {irreps_in} and {irreps_out}; a linear map before "
            "makes them equal"
        )
    for name, irreps in (("irreps_in", irreps_in), ("irreps_out", irreps_out)):
        if len({ir for _, ir in irreps}) < len(irreps):
            raise ValueError(f"{name}: expected each irrep once, got {irreps}; a linear map before merges them")
    if max(irreps_in.ls) > MOST_L[correlation]:
        raise ValueError(
            f"irreps_in: with correlation {correlation} l may be up to {MOST_L[correlation]}, got {irreps_in}"
        )
    if not any(map(sum, paths_of(irreps_in, irreps_out, correlation))):
        raise ValueError(f"irreps_out: no product of up to {correlation} of {irreps_in} is one of {irreps_out}")
    return irreps_in[0].mul


def check_rows(x: Tensor, element: Tensor, dim: int, weight: Tensor) -> None:
    """Raises a ValueError or a TypeError unless nodes' features and elements fit."""
    for name, given in (("x", x), ("element", element)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(given).__name__}")
        if given.device != weight.device:
            raise ValueError(f"{name}: on {given.device}, but the weights are on {weight.device}; move one with .to()")
    if x.dim() != 2 or x.shape[1] != dim:
        raise ValueError(f"x: expected shape (n, {dim}), got {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x and the module to float32 or float64")
    if x.dtype != weight.dtype:
        raise TypeError(f"x: dtype {x.dtype} differs from that of the weights, {weight.dtype}; convert one of them")
    if element.dtype not in (torch.int64, torch.int32) or element.shape != x.shape[:1]:
        raise ValueError(
            f"element: expected int64 or int32 numbers of elements ({x.shape[0]},), got {element.dtype} "
            f"{tuple(element.shape)}; of one-hot elements .argmax(1) makes them"
        )
    known, element = len(weight), untransformed("element", element)
    if checks_on_host(element) and len(element) and not 0 <= int(element.min()) <= int(element.max()) < known:
        found = f"{int(element.min())} to {int(element.max())}"
        raise ValueError(f"element: expected numbers 0 to {known - 1}, got {found}")


class _Reference:
    """A polynomial in plain PyTorch, term by term."""

    def __init__(self, problem: Problem):
        self._problem = problem

    def __call__(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """The output rows, from rows of features and of coefficients of each node."""
        out, rows = self._problem.form[0], {"x": x, "c": coefficients}
        sums: dict[Element, Tensor] = {}

        def read(element: Element) -> Tensor:
            name, block, component = element
            return rows[name][:, self._places(name, block, component)]

        contraction = forward(self._problem)
        powers(self._problem, contraction).evaluate(contraction, read, sums, _TorchArithmetic())
        result = x.new_zeros(x.shape[0], self._problem.row(out).length)
        for element, value in sums.items():
            result = result.index_copy(1, self._places(*element).to(x.device), value)
        return result

    def _places(self, name: str, block: int, component: int) -> Tensor:
        shape = self._problem.row(name).blocks[block]
        return (
            shape.offset + component * shape.component_stride + shape.channel_stride * torch.arange(shape.multiplicity)
        )


class _TorchArithmetic:
    def constant(self, value: float) -> Tensor:
        return torch.tensor(value)

    def negate(self, a: Tensor) -> Tensor:
        return -a

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def add(self, a: Tensor, b: Tensor | None) -> Tensor:
        return a if b is None else a + b

    def fma(self, a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
        return a * b if c is None else torch.addcmul(c, a, b)
