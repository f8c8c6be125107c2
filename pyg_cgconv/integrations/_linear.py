"""e3nn's linear map as one matrix product for each irrep, however many slots it has.

In a CUDA graph it is one kernel for few nodes: there launches cost more than arithmetic."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from e3nn import o3
from torch import Tensor
from torch.fx import Proxy

from cuda_kernels.linear import in_fours

from .._functions import join, reordered, scale_each
from .._torch import refuse_torchscript
from ..cuda_graphs import is_for_graph
from ..nn import FUSED_NODES
from ..ops import DTYPES, contract
from ..tensor_product import Rows, channels_last, describe, problem_of, times
from ._replacement import Replacement


class _Slot(NamedTuple):
    """An output slot: the instructions that lead to it, their input slots, and where its bias begins, if it has one."""

    instructions: list[int]
    inputs: list[int]
    bias: int | None


class _Order(NamedTuple):
    """Where the numbers of a row in ir_mul are in mul_ir, and the other way round."""

    ir_mul: Tensor
    mul_ir: Tensor

    @classmethod
    def of(cls, rows: Rows, device: torch.device) -> _Order | None:
        """None where both layouts are one."""
        # In numpy: a model may be built on the device "meta", or of fake tensors, which have no numbers.
        begins = np.cumsum([0, *map(math.prod, rows.blocks)])[:-1]
        slots = [begin + np.arange(u * d).reshape(u, d).T for begin, (u, d) in zip(begins, rows.blocks, strict=True)]
        order = np.concatenate([slot.ravel() for slot in slots])
        if (order == np.arange(rows.dim)).all():
            return None
        with torch.inference_mode(False):  # of which backward passes could keep nothing
            return cls(*(torch.tensor(each, device=device) for each in (order, order.argsort())))


class Linear(Replacement, o3.Linear):
    """:class:`e3nn.o3.Linear` with weights of its own."""

    original = o3.Linear
    prepared = ("_rows_in", "_rows_out", "_slots", "_shapes", "_scales", "_description", "_order_in", "_order_out")

    @classmethod
    def obstacle(cls, module: Any) -> str:
        if not module.internal_weights or not module.weight_numel:
            return "has no weights of its own"
        if module.weight.dim() != 1:
            return "has a further dimension of channels (f_in, f_out)"
        return ""

    def __init__(self, *arguments: Any, **named: Any):
        """Of a map that others make by the class of one that they find, as LoRA of MACE does."""
        super().__init__(*arguments, **named)
        self.prepare()

    def prepare(self) -> None:
        self._rows_in, self._rows_out = Rows(self.irreps_in, "mul_ir"), Rows(self.irreps_out, "mul_ir")
        maps = [i for i in self.instructions if i.i_in >= 0 and 0 not in i.path_shape]
        biases = [i for i in self.instructions if i.i_in < 0 and 0 not in i.path_shape]
        self._shapes, self._scales = [tuple(i.path_shape) for i in maps], [float(i.path_weight) for i in maps]
        starts = {i.i_out: sum(math.prod(other.path_shape) for other in biases[:n]) for n, i in enumerate(biases)}
        self._slots = []
        for i_out in range(len(self.irreps_out)):
            chosen = [n for n, i in enumerate(maps) if i.i_out == i_out]
            self._slots.append(_Slot(chosen, [maps[n].i_in for n in chosen], starts.get(i_out)))
        paths = [(i.i_in, i.i_out, scale) for i, scale in zip(maps, self._scales, strict=True)]
        description = describe.linear(self.irreps_in, self.irreps_out, paths)
        has_kernel = not biases and in_fours(problem_of(description, "float32"))
        self._description = description if has_kernel else None
        self._order_in, self._order_out = (
            _Order.of(rows, self.weight.device) for rows in (self._rows_in, self._rows_out)
        )

    def _apply(self, *arguments: Any, **named: Any) -> Any:
        super()._apply(*arguments, **named)
        self.prepare()  # the orders are tensors, which no graph that is captured could make
        return self

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self.prepare()  # assigned weights may be on another device

    def forward(self, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        refuse_torchscript(self)
        if isinstance(features, Proxy):  # torch.fx asks how it is computed, as MACE's calculators that compile do
            return super().forward(features, weight, bias)
        weight = (self.weight if weight is None else weight).reshape(self.weight_numel)
        bias = (self.bias if bias is None else bias).reshape(self.bias_numel)
        x = features.reshape(-1, features.shape[-1])
        if self._description is not None and is_for_graph(x) and self._serves(x, weight):
            return self._by_kernel(self._description, x, weight).view(*features.shape[:-1], self._rows_out.dim)
        blocks, out = self._rows_in.split(x), []
        pieces = weight.split([u * v for u, v in self._shapes])
        matrices = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        matrices = list(scale_each(matrices, self._scales))
        for slot, (channels, dim) in zip(self._slots, self._rows_out.blocks, strict=True):
            if slot.inputs:
                together = join([matrices[n].mT for n in slot.instructions]).mT
                block = times(channels_last(join([blocks[k] for k in slot.inputs])), together)
            else:
                block = x.new_zeros(len(x), dim, channels)
            if slot.bias is not None:
                block = block + bias[slot.bias : slot.bias + channels]
            out.append(block)
        return self._rows_out.join(out).view(*features.shape[:-1], self._rows_out.dim)

    def _serves(self, x: Tensor, weight: Tensor) -> bool:
        """Whether there is a kernel for such features, which must be where the orders are."""
        if torch.is_autocast_enabled(x.device.type) or x.dtype != weight.dtype:
            return False
        orders = [order for order in (self._order_in, self._order_out) if order is not None]
        is_here = all(order.mul_ir.device == x.device for order in orders)
        return is_here and len(x) <= FUSED_NODES and x.dtype in DTYPES

    def _by_kernel(self, description: str, x: Tensor, weight: Tensor) -> Tensor:
        self._rows_in.check(x)
        if self._order_in is not None:
            x = reordered(x, *self._order_in)
        result = contract(description, (x, weight))
        return result if self._order_out is None else reordered(result, self._order_out.mul_ir, self._order_out.ir_mul)
