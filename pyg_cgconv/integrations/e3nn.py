"""e3nn: `accelerate(model)` has the products, linear maps and perceptrons in any module computed faster."""

from __future__ import annotations

from typing import Any

from e3nn import o3
from torch import nn

from .. import nn as layers
from ..tensor_product import summands
from ._fully_connected import FullyConnectedNet
from ._linear import Linear
from ._replacement import Accelerator, Model, Replacement
from ._versions import Known

__all__ = [
    "ElementwiseTensorProduct",
    "FullyConnectedNet",
    "FullyConnectedTensorProduct",
    "Linear",
    "TensorProduct",
    "TensorSquare",
    "accelerate",
    "report",
    "restore",
]

Known("e3nn", "0.4.4", "0.7").check()


MOST_COPIES = 16
"""Copies of a second factor that a path of mode "uvw" mixes, at most. On a CPU (64 channels to l = 2, 216 rows, forward
and backward) e3nn takes 19 ms with 8 copies and 40 with 32, our product 11 and 114."""


class _Product(Replacement):
    """What the four products have in common."""

    prepared = ("_summands",)

    @classmethod
    def obstacle(cls, module: Any) -> str:
        copies = [module.irreps_in2[i.i_in2].mul for i in module.instructions if i.connection_mode == "uvw"]
        if max(copies, default=0) > MOST_COPIES:
            return f"e3nn's is the faster, as each path mixes {max(copies)} copies"
        return "" if _summands(module) else "it has no paths"

    def prepare(self) -> None:
        self._summands = _summands(self)


def _summands(product: Any):
    return summands(product, "mul_ir", on_graph=False)


class TensorProduct(_Product, layers.TensorProduct):
    original = o3.TensorProduct


class FullyConnectedTensorProduct(_Product, layers.FullyConnectedTensorProduct):
    original = o3.FullyConnectedTensorProduct


class ElementwiseTensorProduct(_Product, layers.ElementwiseTensorProduct):
    original = o3.ElementwiseTensorProduct


class TensorSquare(_Product, layers.TensorSquare):
    original = o3.TensorSquare


OURS = layers.TensorProduct, layers.FullyConnectedTensorProduct, layers.ElementwiseTensorProduct, layers.TensorSquare
"""What runs by generated kernels without having been replaced."""


def _others(module: nn.Module) -> str:
    known = o3.TensorProduct, o3.Linear, FullyConnectedNet.original
    is_other = isinstance(module, known) and not isinstance(module, OURS)
    return f"{type(module).__name__} is another class" if is_other else ""


_REPLACEMENTS = (
    TensorProduct,
    FullyConnectedTensorProduct,
    ElementwiseTensorProduct,
    TensorSquare,
    Linear,
    FullyConnectedNet,
)
_models = Accelerator(
    {kind.original: kind for kind in _REPLACEMENTS},
    f"modules of e3nn ({', '.join(kind.__name__ for kind in _REPLACEMENTS)})",
    _others,
)


def accelerate(model: Model) -> Model:
    """Has e3nn's products, linear maps and perceptrons in a module computed faster. Everything else of it stays.

    Replaced are modules of exactly these classes of `e3nn.o3`: ``TensorProduct``, ``FullyConnectedTensorProduct``,
    ``ElementwiseTensorProduct``, ``TensorSquare`` and ``Linear``; and ``e3nn.nn.FullyConnectedNet`` with SiLU. Their
    parameters, buffers and keys in the state dict stay, as do pickles of the whole model, ``.to()`` and
    ``copy.deepcopy``.

    A product that is followed by a sum over edges gains more as a layer: ``TensorProductConv.from_e3nn(product)`` does
    both in one kernel.

    Args:
        model: a module of Python, or such a product or map itself.

    Returns:
        The same model. :func:`report` tells what was replaced, as does the log (level INFO).

    Raises:
        TypeError: the model is no module, or one of TorchScript.
        ValueError: nothing in it can be replaced.
    """
    return _models.accelerate(model)


restore, report = _models.restore, _models.report
