"""Products of a node's features with themselves: correlations between its neighbours."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

from e3nn import o3
from torch import Tensor, nn

from .._functions import without_autocast
from .._torch import NotScripted, refuse_torchscript
from ..ops import contract
from ..tensor_product import IrrepsLike, ReferenceProduct, Rows, describe, shape, tensor_product, to_ir_mul, to_mul_ir
from ._linear import Linear

_UNCOMPILED: dict[str, Any] = {
    "compile_left_right": False,
    "compile_right": False,
}  # only the paths' normalisation is read


class NodeProducts(NotScripted, nn.Module):
    r"""Products of two irreps of a node, channel by channel, between linear maps: MACE's contraction of correlation
    order 2 (Batatia et al., `Higher order equivariant message passing neural networks
    <https://arxiv.org/abs/2206.07697>`_), with the same weights for all species.

    .. math::
        y^{(l_1 l_2 l)}_{u k} = \sqrt{2 l + 1} \sum_{i j}
            \begin{pmatrix} l_1 & l_2 & l \\ i & j & k \end{pmatrix}
            (\mathbf{L} \mathbf{x})^{(l_1)}_{u i} \, (\mathbf{L} \mathbf{x})^{(l_2)}_{u j}, \qquad
        \mathbf{x}' = \mathbf{L}' \mathbf{y}

    for all :math:`l_1 \le l_2` and the l of the output, without those that are zero because they are antisymmetric. A
    sum over neighbours times itself is a sum over pairs of neighbours: an atom sees the angles between them at once.

    Args:
        irreps_in: Features; an irrep may occur in several slots.
        channels: Channels u of each irrep that is multiplied.
        irreps_out: Wanted features, each irrep once.
        layout: Order of the numbers in a row: "mul_ir" (e3nn's) or "ir_mul" (a component's channels together, the
            faster).
        fused: Whether the products, and on a GPU the linear maps, are those of the generated kernels; otherwise the
            products are e3nn's.

    Raises:
        ValueError: no product of two irreps of the input is wanted, or there is no such layout.

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout
        - **output:** (n, irreps_out.dim) in the layout
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        channels: int,
        irreps_out: IrrepsLike,
        *,
        layout: str = "mul_ir",
        fused: bool = True,
    ):
        super().__init__()
        self.irreps_in, self.irreps_out, self.layout = o3.Irreps(irreps_in), o3.Irreps(irreps_out), layout
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self.factors = o3.Irreps([(channels, ir) for ir in sorted({ir for _, ir in self.irreps_in})])
        self.slots, self.instructions = _products(self.factors, self.irreps_out)
        self.irreps_products = self.slots.simplify()
        arguments = self.factors, self.factors, self.slots, self.instructions
        self._reference = ReferenceProduct(*arguments, "mul_ir", shared_weights=True)
        self._description = describe.square(tensor_product(*arguments, **_UNCOMPILED)) if fused else None
        # The kernels know ir_mul only: rows are converted once before and once after.
        self.linear_in = Linear(self.irreps_in, self.factors, layout="ir_mul", fused=fused)
        self.linear_out = Linear(self.irreps_products, self.irreps_out, layout="ir_mul", fused=fused)

    def forward(self, x: Tensor) -> Tensor:
        refuse_torchscript(self)
        out = self.linear_out(self.multiplied(self.linear_in(self._rows_in.to_ir_mul(x))))
        return self._rows_out.from_ir_mul(out)

    @without_autocast
    def multiplied(self, x: Tensor) -> Tensor:
        """The products y (n, irreps_products.dim) of features (n, factors.dim), float32 or float64; both in ir_mul."""
        if self._description is not None:
            if x.dim() != 2 or x.shape[1] != self.factors.dim:
                raise ValueError(f"x: expected shape (n, {self.factors.dim}), got {tuple(x.shape)}")
            return contract(self._description, (x,))
        x = to_mul_ir(x, shape(self.factors))
        return to_ir_mul(self._reference(x, x, None), shape(self.irreps_products))

    def extra_repr(self) -> str:
        return f"{self.factors} -> {self.irreps_products}, layout={self.layout!r}"


def _products(factors: o3.Irreps, wanted: o3.Irreps) -> tuple[o3.Irreps, list]:
    """The products of two of the factors that are ``wanted``, a slot each, and e3nn's instructions for them."""
    slots: list[tuple[int, o3.Irrep]] = []
    instructions = []
    for _, ir in wanted:
        for (a, (channels, ir_a)), (b, (_, ir_b)) in combinations_with_replacement(enumerate(factors), 2):
            antisymmetric = a == b and (2 * ir_a.l + ir.l) % 2
            if ir in ir_a * ir_b and not antisymmetric:
                instructions.append((a, b, len(slots), "uuu", False))
                slots.append((channels, ir))
    if not slots:
        raise ValueError(f"irreps_out: no product of two of {factors} is one of {wanted}")
    return o3.Irreps(slots), instructions
