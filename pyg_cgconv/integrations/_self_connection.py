"""Self-connections: products with attributes that a model looks up for an atom's species are linear maps by species."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from .._torch import is_traced, refuse_torchscript
from ..nn import FEW_SPECIES, Grouped, prepared_species, products_by_species
from ..tensor_product import Rows, channels_last
from ._replacement import Replacement, logger

_NAME = "_pyg_cgconv_looked_up"


class LookUp:
    """What attributes (n, A) of atoms were looked up from.

    Args:
        species: Numbers (n,) below S.
        table: The attributes of each species (S, A); None if they are one-hot rows, A = S.
        version: That of the attributes, which others may change in place.
    """

    def __init__(self, species: Tensor, table: Tensor | None, version: int):
        self.species, self.table, self.version = species, table, version
        self._prepared: tuple[int, torch.dtype, Tensor | Grouped] | None = None

    def __reduce__(self):
        """Copies and files of the attributes are without it: what is read must not need this class."""
        return set, ()

    def prepared(self, nodes: int, count: int, dtype: torch.dtype) -> Tensor | Grouped:
        """One-hot rows or groups of the first species: made once for all layers."""
        if self._prepared is None or self._prepared[:2] != (nodes, dtype):
            self._prepared = nodes, dtype, prepared_species(self.species[:nodes], count, dtype)
        return self._prepared[2]


def looked_up(attributes: Tensor, species: Tensor, table: Tensor | None) -> None:
    """Notes of attributes what they were looked up from. In programs that are compiled, and in inference mode, nothing
    can be noted."""
    if not torch.compiler.is_compiling() and not attributes.is_inference():
        setattr(attributes, _NAME, LookUp(species, table, attributes._version))


def look_up(attributes: Tensor) -> LookUp | None:
    """What was noted of them, or of the attributes of which they are the first rows."""
    whole = attributes
    if attributes._is_view() and attributes.storage_offset() == 0:
        base = attributes._base
        if base is not None and base.shape[1:] == attributes.shape[1:] and base.stride() == attributes.stride():
            whole = base
    found = getattr(whole, _NAME, None)
    return found if isinstance(found, LookUp) and found.version == whole._version else None


class SelfConnection(Replacement, o3.FullyConnectedTensorProduct):
    r"""A fully connected product of features x of an atom with attributes :math:`a` of its species s,

    .. math::
        y_{v m} \propto \sum_{u a} W_{u a v} \, x_{u m} \, a_a(s) = \sum_u W^{(s)}_{u v} \, x_{u m}, \qquad
        W^{(s)}_{u v} = \sum_a W_{u a v} \, a_a(s) .

    With other attributes it is e3nn's.
    """

    original = o3.FullyConnectedTensorProduct
    prepared = ("_rows_in", "_rows_out", "_shapes", "_slots", "_told")

    @classmethod
    def obstacle(cls, module: Any) -> str:
        if not (module.internal_weights and module.shared_weights):
            return "has no weights of its own"
        attributes = module.irreps_in2
        return "" if len(attributes) == 1 and attributes[0].ir.is_scalar() else f"its attributes are {attributes}"

    def prepare(self) -> None:
        self._rows_in, self._rows_out = Rows(self.irreps_in1, "mul_ir"), Rows(self.irreps_out, "mul_ir")
        paths = [i for i in self.instructions if prod(i.path_shape)]
        self._shapes = [tuple(i.path_shape) for i in paths]
        # A Clebsch-Gordan coefficient with a scalar is 1 / sqrt(2 l + 1).
        self._slots = [
            [(n, i.i_in1, i.path_weight / sqrt(ir.dim)) for n, i in enumerate(paths) if i.i_out == slot]
            for slot, (_, ir) in enumerate(self.irreps_out)
        ]
        self._told = False

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        refuse_torchscript(self)
        if torch.compiler.is_compiling() or weight is not None:
            return super().forward(x, y, weight)
        found = look_up(y)
        if found is None:
            if not self._told:
                self._told = True
                logger.warning(
                    "%s: computed by e3nn: its attributes are not those that the model looked up for species, or it is "
                    "called in inference mode",
                    type(self).__name__,
                )
            return super().forward(x, y, weight)
        count = self.irreps_in2.dim if found.table is None else found.table.shape[0]
        return self._by_species(x, found, count) if pays(x, found, count) else super().forward(x, y, weight)

    def _by_species(self, x: Tensor, found: LookUp, count: int) -> Tensor:
        species = found.prepared(x.shape[0], count, x.dtype)
        blocks = [channels_last(block) for block in self._rows_in.split(x)]
        pieces = self.weight.split([prod(shape) for shape in self._shapes])
        matrices = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        if found.table is not None:
            matrices = [found.table @ matrix for matrix in matrices]
        rows, out = x.shape[0] if isinstance(species, Tensor) else len(species.node), []
        for paths, (channels, dim) in zip(self._slots, self._rows_out.blocks, strict=True):
            block = x.new_zeros(rows, dim, channels)
            for n, (path, slot, factor) in enumerate(paths):
                product = products_by_species(blocks[slot], matrices[path], species)
                block = torch.add(block, product, alpha=factor) if n else product * factor
            out.append(block)
        result = self._rows_out.join(out)
        return result if isinstance(species, Tensor) else result.index_select(0, species.place)


def pays(x: Tensor, found: LookUp, count: int) -> bool:
    """Whether maps by species are less work. A program that is traced multiplies with those of all species, and they
    are made for all."""
    return count <= FEW_SPECIES or (not is_traced(x) and (found.table is None or count <= x.shape[0]))
