"""e3nn's tensor products of rows, by the generated kernels."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from .._checks import STORED, check_stored
from .._functions import without_autocast
from .._torch import NotScripted, refuse_torchscript
from ..ops import DTYPES, contract
from ..tensor_product import check_channels, check_equal_channels, checked_arguments, rejections_named, summands

LAYOUT = "mul_ir"


class _Generated(NotScripted, o3.TensorProduct):
    """What the products have in common: all of e3nn's, and a forward by generated kernels."""

    def __init__(self, *args: Any, **kwargs: Any):
        arguments = checked_arguments(super().__init__, args, kwargs)
        named = [arguments.get(name) for name in ("irreps_in1", "irreps_in2", "irreps_out", "instructions")]
        if isinstance(self, o3.ElementwiseTensorProduct) and None not in named[:2]:
            check_equal_channels(*named[:2])
        with rejections_named(*named) if "instructions" in arguments else nullcontext():
            super().__init__(**arguments)
        check_channels(self)
        self._summands = summands(self, LAYOUT, on_graph=False)

    @without_autocast
    def forward(self, x: Tensor, y: Tensor, weight: Tensor | list[Tensor] | None = None) -> Tensor:
        refuse_torchscript(self)
        weight = self._checked(x, y, weight)
        leading = self._leading(x, y, weight)
        if self._summands is None:
            return o3.TensorProduct.forward(self, x, y.to(x.dtype), weight.to(x.dtype))
        row = weight if self.shared_weights else _rows(weight, leading)
        out = self._summands(contract, _rows(x, leading), _rows(y, leading), row)
        return out.reshape(*leading, out.shape[-1])

    def _checked(self, x: Tensor, y: Tensor, weight: Tensor | list[Tensor] | None) -> Tensor:
        """The weights as one tensor, the internal ones if none are given."""
        self._check("x", x, self._in1_dim)
        if x.dtype not in DTYPES:
            raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x to float32 or float64")
        if x.device.type not in ("cpu", "cuda"):
            raise ValueError(f"x: on {x.device}, which has no kernels; move x to a CPU or a GPU of NVIDIA")
        self._check("y", y, self._in2_dim, x)
        is_own = weight is None and self.internal_weights
        row = self._row_of(x, weight)
        if is_own and row.dtype != x.dtype and row.dtype not in STORED:
            raise TypeError(
                f"weight: the product's own weights have dtype {row.dtype}, x has {x.dtype}; convert x, or the product "
                "by .to(dtype)"
            )
        self._check("weight", row, self.weight_numel, x)
        if self.shared_weights and self.weight_numel and row.dim() != 1:
            raise ValueError(
                f"weight: expected ({self.weight_numel},), got {tuple(row.shape)}, in {self}; with "
                "shared_weights=False each row has weights of its own"
            )
        return row

    def _check(self, name: str, tensor: Tensor, length: int, x: Tensor | None = None) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a tensor (..., {length}), got {type(tensor).__name__}, in {self}")
        if not tensor.dim() or tensor.shape[-1] != length:
            raise ValueError(f"{name}: expected (..., {length}), got {tuple(tensor.shape)}, in {self}")
        if x is not None:
            if tensor.device != x.device:
                raise ValueError(f"{name}: on {tensor.device}, but x is on {x.device}; move it with .to()")
            check_stored(name, tensor, x.dtype)

    def _row_of(self, x: Tensor, weight: Tensor | list[Tensor] | None) -> Tensor:
        if weight is None:
            if not self.weight_numel:
                return x.new_empty(0)
            if not self.internal_weights:
                expected = f"({self.weight_numel},)" if self.shared_weights else f"(..., {self.weight_numel})"
                raise ValueError(f"weight: missing; {self} has no weights of its own, give {expected}")
            return self.weight
        if isinstance(weight, (list, tuple)):
            return self._joined(list(weight))
        if isinstance(weight, Tensor) and self.shared_weights and tuple(weight.shape) == (1, self.weight_numel):
            return weight[0]
        return weight

    def _joined(self, weights: list[Tensor]) -> Tensor:
        """One row, or rows, of the weights of each instruction."""
        expected = [tuple(i.path_shape) for i in self.instructions if i.has_weight]
        found = [tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__ for w in weights]
        if len(found) != len(expected) or not all(map(self._fits, weights, expected)):
            shapes = expected if self.shared_weights else [("...", *shape) for shape in expected]
            raise ValueError(f"weight: expected tensors of the instructions' shapes {shapes}, got {found}, in {self}")
        return self._prep_weights_python(weights)

    def _fits(self, weight: Tensor, shape: tuple[int, ...]) -> bool:
        if not isinstance(weight, Tensor):
            return False
        rows = 1 if self.shared_weights else prod(weight.shape[: max(1, weight.dim() - len(shape))])
        return weight.numel() == rows * prod(shape)

    def _leading(self, x: Tensor, y: Tensor, weight: Tensor) -> torch.Size:
        """The rows' dimensions, of all inputs together."""
        named = {"x": x, "y": y} if self.shared_weights else {"x": x, "y": y, "weight": weight}
        shapes = {name: tuple(tensor.shape[:-1]) for name, tensor in named.items()}
        try:
            return torch.broadcast_shapes(*shapes.values())
        except RuntimeError as error:
            raise ValueError(
                f"y: rows {shapes} do not broadcast, in {self}; expected equal numbers of rows, or 1"
            ) from error


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

    A generated kernel makes the products of channels. With shared weights, the default, matrix products mix them, else
    a further kernel does.
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
