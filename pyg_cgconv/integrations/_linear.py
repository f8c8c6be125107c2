"""e3nn's linear map as one matrix product for each irrep, however many slots it has."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from e3nn import o3
from torch import Tensor
from torch.fx import Proxy

from .._functions import join, scale_each
from .._torch import refuse_torchscript
from ..tensor_product import Rows, channels_last
from ._replacement import Replacement


class _Slot(NamedTuple):
    """An output slot: the instructions that lead to it, their input slots, and where its bias begins, if it has one."""

    instructions: list[int]
    inputs: list[int]
    bias: int | None


class Linear(Replacement, o3.Linear):
    """:class:`e3nn.o3.Linear` with weights of its own."""

    original = o3.Linear
    prepared = ("_rows_in", "_rows_out", "_slots", "_shapes", "_scales")

    @classmethod
    def obstacle(cls, module: Any) -> str:
        if not module.internal_weights or not module.weight_numel:
            return "has no weights of its own"
        if module.weight.dim() != 1:
            return "has a further dimension of channels (f_in, f_out)"
        return ""

    def prepare(self) -> None:
        self._rows_in, self._rows_out = Rows(self.irreps_in, "mul_ir"), Rows(self.irreps_out, "mul_ir")
        maps = [i for i in self.instructions if i.i_in >= 0 and 0 not in i.path_shape]
        biases = [i for i in self.instructions if i.i_in < 0 and 0 not in i.path_shape]
        self._shapes, self._scales = [tuple(i.path_shape) for i in maps], [float(i.path_weight) for i in maps]
        starts = {i.i_out: sum(prod(other.path_shape) for other in biases[:n]) for n, i in enumerate(biases)}
        self._slots = []
        for i_out in range(len(self.irreps_out)):
            chosen = [n for n, i in enumerate(maps) if i.i_out == i_out]
            self._slots.append(_Slot(chosen, [maps[n].i_in for n in chosen], starts.get(i_out)))

    def forward(self, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        refuse_torchscript(self)
        if isinstance(features, Proxy):  # torch.fx asks how it is computed, as MACE's calculators that compile do
            return super().forward(features, weight, bias)
        weight = (self.weight if weight is None else weight).reshape(self.weight_numel)
        bias = (self.bias if bias is None else bias).reshape(self.bias_numel)
        x = features.reshape(-1, features.shape[-1])
        blocks, out = self._rows_in.split(x), []
        pieces = weight.split([u * v for u, v in self._shapes])
        matrices = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        matrices = list(scale_each(matrices, self._scales))
        for slot, (channels, dim) in zip(self._slots, self._rows_out.blocks, strict=True):
            if slot.inputs:
                together = join([matrices[n].mT for n in slot.instructions]).mT
                block = channels_last(join([blocks[k] for k in slot.inputs])) @ together
            else:
                block = x.new_zeros(len(x), dim, channels)
            if slot.bias is not None:
                block = block + bias[slot.bias : slot.bias + channels]
            out.append(block)
        return self._rows_out.join(out).view(*features.shape[:-1], self._rows_out.dim)
