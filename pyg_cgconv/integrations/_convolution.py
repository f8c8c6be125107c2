"""A product of e3nn on a graph's edges, summed over their targets: one kernel."""

from __future__ import annotations

from functools import partial

from e3nn import o3
from torch import Tensor

from .._functions import without_autocast
from .._torch import is_traced
from ..ops import DTYPES, Edges, contract
from ..tensor_product import summands, without_kernel


class Convolution:
    r"""Of edges :math:`j \to i` the sum :math:`\sum_j x_j \otimes_{w_{ji}} e_{ji}`, as the product of e3nn has it: its
    irreps, paths and normalised path weights.

    Args:
        product: with weights of each edge, given from outside.
        layout: of x and the result, "mul_ir" or "ir_mul".
    """

    def __init__(self, product: o3.TensorProduct, layout: str = "mul_ir"):
        self.layout, self._summands = layout, summands(product, layout, on_graph=True)

    @without_autocast
    def __call__(self, x: Tensor, edges: Edges, edge_attr: Tensor, weight: Tensor) -> Tensor:
        """The sums (targets, irreps_out.dim).

        Args:
            x: (sources, irreps_in1.dim), float32 or float64.
            edge_attr: (E, irreps_in2.dim)
            weight: (E, weight_numel)
        """
        if x.dtype not in DTYPES:
            raise TypeError(f"x: dtype {x.dtype} has no kernel; convert the model to float32 or float64")
        if x.device.type not in ("cpu", "cuda"):
            raise ValueError(f"x: on {x.device}, which has no kernels; move the model to a CPU or a GPU of NVIDIA")
        if not is_traced(x) and not edges.num_edges == edge_attr.shape[0] == weight.shape[0]:
            raise ValueError(
                f"edge_index: has {edges.num_edges} edges, but edge features have {edge_attr.shape[0]} rows, weights "
                f"{weight.shape[0]}"
            )
        evaluate = partial(contract, edges=edges)
        return self._summands(evaluate, x, edge_attr.to(x.dtype), weight.to(x.dtype))  # type: ignore[misc]


def obstacle(product: object) -> str:
    """Why there is no such convolution of a product; empty if there is one."""
    if not isinstance(product, o3.TensorProduct):
        return f"its product is {type(product).__module__}.{type(product).__name__}, not e3nn's TensorProduct"
    if product.shared_weights or product.internal_weights:
        return "its weights are not those of each edge"
    reasons = without_kernel(product)
    if not product.instructions:
        reasons.append("it has no paths")
    return "; ".join(reasons)
