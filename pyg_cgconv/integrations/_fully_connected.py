"""e3nn's multilayer perceptron with its constants multiplied to the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from e3nn import nn
from e3nn.math import normalize2mom
from e3nn.nn import _fc
from torch import Tensor
from torch.fx import Proxy
from torch.nn import SiLU, functional

from .._functions import scale_each
from .._torch import refuse_torchscript
from ..ops import silu
from ._replacement import Replacement, hooks_of


class FullyConnectedNet(Replacement, nn.FullyConnectedNet):
    r""":class:`e3nn.nn.FullyConnectedNet` with SiLU between its layers. Those are

    .. math::
        x_k = c \, \sqrt{v_k} \, \mathrm{silu}\left( x_{k-1} W_k / \sqrt{h_{k-1} v_{k-1}} \right)

    for widths h, variances v and the c that normalises silu. The factors before x are multiplied to the weights of the
    next layer, which are few; activations are as many as edges.
    """

    original = nn.FullyConnectedNet

    @classmethod
    def obstacle(cls, module: Any) -> str:
        layers = []
        for name, part in module._modules.items():
            layer = cls.layer_of(part)
            if type(layer) is not _fc._Layer:
                return f"its {name} is {type(layer).__name__}"
            if any(hooks_of(part)) or any(hooks_of(layer)):
                return f"its {name} has hooks"
            layers.append(layer)
        if not layers:
            return "it has no layers"
        *hidden, last = [layer.act for layer in layers]
        if last is not None:
            return "its output has an activation"
        others = [activation for activation in hidden if not _is_silu(activation)]
        return f"its activation is {_name(others[0])}, not SiLU" if others else ""

    @staticmethod
    def layer_of(part: Any) -> Any:
        """e3nn's layer that a part of the network is made of."""
        return part

    @staticmethod
    def weight_of(part: Any) -> Tensor:
        """W of a part of the network, without its constants."""
        return part.weight

    def hindrance(self) -> str:
        return self.obstacle(self)

    def forward(self, x: Tensor) -> Tensor:
        refuse_torchscript(self)
        if isinstance(x, Proxy) or self.hindrance():
            return super().forward(x)
        first, *others = scale_each(map(self.weight_of, self), _scales(map(self.layer_of, self)))
        x = x @ first
        for weight in others:
            x = silu(x) @ weight
        return x


def _scales(layers: Iterable[Any]) -> list[float]:
    """Those of the layers' weights."""
    scales, gain = [], 1.0
    for layer in layers:
        scales.append(gain * (layer.h_in * layer.var_in) ** -0.5)
        gain = layer.var_out**0.5 * (1.0 if layer.act is None else layer.act.cst)
    return [*scales[:-1], scales[-1] * gain]


def _is_silu(activation: Any) -> bool:
    if type(activation) is not normalize2mom:
        return False
    return activation.f is functional.silu or type(activation.f) is SiLU


def _name(activation: Any) -> str:
    function = getattr(activation, "f", activation)
    names = (getattr(function, attribute, None) for attribute in ("name", "__name__"))  # one of TorchScript has a name
    return next((name for name in names if isinstance(name, str)), type(function).__name__)
