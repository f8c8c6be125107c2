"""What turns with its input."""

import torch
from e3nn import o3
from torch import Tensor, nn

from pyg_cgconv.tensor_product import shape, to_ir_mul, to_mul_ir


def assert_equivariant(layer: nn.Module, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> Tensor:
    """A layer in float64, of features in the layout ir_mul, is turned and inverted with them; returns its output."""
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)  # mul_ir, the layout of D

    def output(x: Tensor) -> Tensor:
        return to_mul_ir(layer(to_ir_mul(x, shape(irreps_in))), shape(irreps_out))

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in which e3nn makes matrices
    try:
        for rotation in (o3.rand_matrix(), -o3.rand_matrix()):
            turn_in, turn_out = (irreps.D_from_matrix(rotation).mT for irreps in (irreps_in, irreps_out))
            torch.testing.assert_close(output(x @ turn_in), output(x) @ turn_out)
    finally:
        torch.set_default_dtype(before)
    return output(x)
