"""e3nn's tensor products of rows, by the generated kernels."""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from .._checks import check_stored
from .._functions import without_autocast
from .._torch import NotScripted, refuse_torchscript
from ..ops import DTYPES, contract
from ..tensor_product import check_channels, summands, without_kernel

LAYOUT = "mul_ir"


class _Generated(NotScripted, o3.TensorProduct):
    """What the products have in common: all of e3nn's, and a forward by a generated kernel."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        check_channels(self)
        reasons = without_kernel(self, on_graph=False)
        self._summands = None if reasons else summands(self, LAYOUT, on_graph=False)
        if reasons:
            warnings.warn(
                f"{'; '.join(reasons)}; this product is e3nn's, which is slow and keeps intermediates in memory",
                stacklevel=2,
            )

    @without_autocast
    def forward(self, x: Tensor, y: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:
        refuse_torchscript(self)
        weight = self._row_of(weight) if self.weight_numel else x.new_empty(0)
        self._check(x, y, weight)
        if self._summands is None:
            return o3.TensorProduct.forward(self, x, y.to(x.dtype), weight.to(x.dtype))
        shapes = [x.shape[:-1], y.shape[:-1], *([] if self.shared_weights else [weight.shape[:-1]])]
        leading = torch.broadcast_shapes(*shapes)
        row = weight if self.shared_weights else _rows(weight, leading)
        out = self._summands(contract, _rows(x, leading), _rows(y, leading), row)
        return out.reshape(*leading, out.shape[-1])

    def _row_of(self, weight: Tensor | list[Tensor] | None) -> Tensor:
        """The weights in one row, the internal ones if none are given."""
        if weight is None:
            if self.weight_numel and not self.internal_weights:
                raise ValueError(f"weight: missing; {self} has no weights of its own")
            return self.weight
        row = self._prep_weights_python(weight)
        is_row = self.shared_weights and tuple(row.shape) == (1, self.weight_numel)
        return row[0] if is_row else row

    def _check(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        for name, tensor, length in (
            ("x", x, self._in1_dim),
            ("y", y, self._in2_dim),
            ("weight", weight, self.weight_numel),
        ):
            if not tensor.dim() or tensor.shape[-1] != length:
                raise ValueError(f"{name}: expected (..., {length}), got {tuple(tensor.shape)}, in {self}")
            if tensor.device != x.device:
                raise ValueError(f"{name}: on {tensor.device}, but x is on {x.device}; move it with .to()")
            check_stored(name, tensor, x.dtype)
        if self.shared_weights and weight.dim() != 1:
            raise ValueError(f"weight: expected ({self.weight_numel},), got {tuple(weight.shape)}, in {self}")
        if x.dtype not in DTYPES:
            raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x to float32 or float64")


def _rows(tensor: Tensor, leading: torch.Size) -> Tensor:
    return tensor.expand(*leading, tensor.shape[-1]).reshape(prod(leading), tensor.shape[-1])


class TensorProduct(_Generated):
    r"""The tensor product of :class:`e3nn.o3.TensorProduct`, name for name, by a generated kernel.

    .. math::
        (\mathbf{x} \otimes_{\mathbf{w}} \mathbf{y})_{uk} = \sum_{p} \sum_{v} w_{puv} \sum_{ij}
            C^{p}_{ijk}\, x_{ui}\, y_{vj}

    Arguments, attributes, weights and the state dict are e3nn's; `e3nn's page
    <https://docs.e3nn.org/en/stable/api/o3/o3_tp.html>`_ lists them. The paths of each mode run by a generated
    kernel, as do their derivatives of any order. Of modes "uvw", "uuw" and "u<vw", the kernel's result is mixed by
    matrix products, or by a further kernel where each row has weights of its own. With the other modes, a gradient by
    shared weights needs memory for a row of them for each row of x.

    Shapes:
        - **x:** (..., irreps_in1.dim)
        - **y:** (..., irreps_in2.dim), of a shape that broadcasts with that of x
        - **weight:** :obj:`None` for internal weights, (weight_numel,) for shared ones, else (..., weight_numel); or a
          list of the instructions' weights
        - **output:** (..., irreps_out.dim), the dtype (float32 or float64) of x

    Inputs have one dtype. Beside x in float32, y and the weights may be stored in bfloat16 or float16: sums and the
    output are float32, and gradients have the dtype of their input.

    Raises:
        ValueError: a shape or a device is wrong.
        TypeError: dtypes differ, or no kernel computes with them.
    """


class FullyConnectedTensorProduct(_Generated, o3.FullyConnectedTensorProduct):
    """The product of :class:`e3nn.o3.FullyConnectedTensorProduct`, name for name: all paths, each with mode "uvw".

    With shared weights, the default, a generated kernel makes the products of channels, and matrix products mix them.
    Arguments are e3nn's: ``irreps_in1``, ``irreps_in2``, ``irreps_out``, ``irrep_normalization`` and
    ``path_normalization``. Shapes and errors are those of :class:`TensorProduct`.
    """


class ElementwiseTensorProduct(_Generated, o3.ElementwiseTensorProduct):
    """The product of :class:`e3nn.o3.ElementwiseTensorProduct`, name for name, by a generated kernel: channel by
    channel, without weights.

    Arguments are e3nn's: ``irreps_in1``, ``irreps_in2``, ``filter_ir_out`` and ``irrep_normalization``. Shapes and
    errors are those of :class:`TensorProduct`.
    """


class TensorSquare(_Generated, o3.TensorSquare):
    """The product of :class:`e3nn.o3.TensorSquare`, name for name: of features with themselves, each pair of channels
    once.

    Arguments are e3nn's: ``irreps_in``, ``irreps_out``, ``filter_ir_out`` and ``irrep_normalization``. With
    ``irreps_out`` weights mix all products (modes "uvw", "u<vw" and "uuw"); without it there are no weights (modes
    "uvuv", "uvu<v" and "uuu"). A call is ``square(x, weight=None)``. Shapes and errors are those of
    :class:`TensorProduct`.
    """

    def forward(self, x: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, weight)
