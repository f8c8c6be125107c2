"""The convolution in plain PyTorch: e3nn's tensor product a message. Slow and obvious; every mode of e3nn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

try:
    import torch_scatter
except ImportError:
    torch_scatter = None

from .._torch import without_modes
from ._instructions import tensor_product
from ._layout import shape, to_ir_mul, to_mul_ir


class ReferenceProduct:
    """e3nn's tensor product at the precision of its inputs.

    e3nn freezes its Clebsch-Gordan coefficients at the default dtype of its construction (a later ``.double()`` leaves
    an error of 2e-8), so one product is built for each dtype and device, when first needed.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_out: o3.Irreps,
        instructions: Sequence[tuple],
        layout: str,
        shared_weights: bool,
    ):
        self.arguments = (irreps_in, irreps_edge, irreps_out, instructions)
        self.layout = layout
        self.shared_weights = shared_weights
        self.built: dict[tuple[torch.dtype, torch.device], o3.TensorProduct] = {}

    def __call__(self, x: Tensor, edge_attr: Tensor, weight: Tensor | None) -> Tensor:
        """Messages (E, irreps_out.dim) of gathered node features (E, irreps_in.dim)."""
        irreps_in, irreps_edge, irreps_out, _ = self.arguments
        if self.layout == "ir_mul":
            x, edge_attr = to_mul_ir(x, shape(irreps_in)), to_mul_ir(edge_attr, shape(irreps_edge))
        out = self.product(x.dtype, x.device)(x, edge_attr, weight)
        return to_ir_mul(out, shape(irreps_out)) if self.layout == "ir_mul" else out

    def product(self, dtype: torch.dtype, device: torch.device) -> o3.TensorProduct:
        if (dtype, device) not in self.built:
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with without_modes():  # e3nn keeps coefficients for later calls
                    product = tensor_product(*self.arguments, shared_weights=self.shared_weights)
            finally:
                torch.set_default_dtype(before)
            self.built[dtype, device] = product.to(device)
        return self.built[dtype, device]

    @staticmethod
    def scatter(messages: Tensor, target: Tensor, nodes: int, reduce: str) -> Tensor:
        """Messages (E, d) summed (or averaged) over those with the same target: (nodes, d)."""
        if torch_scatter is not None:
            return torch_scatter.scatter(messages, target.long(), dim=0, dim_size=nodes, reduce=reduce)
        out = messages.new_zeros(nodes, messages.shape[1]).index_add(0, target, messages)
        if reduce == "mean":
            count = out.new_zeros(nodes).index_add(0, target, out.new_ones(()).expand(target.shape))
            out = out / count.clamp(min=1).unsqueeze(-1)
        return out

    def __getstate__(self):
        return {**self.__dict__, "built": {}}
