"""Paths that one kernel does: which numbers they read and write, and who writes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ..coefficients import unit_scale
from ..contraction import Contraction
from ..polynomial import Element
from ..problem import OUT, Channels, Index, Path, Problem


@dataclass(frozen=True)
class PathGroup:
    """Some paths of one multiplicity.

    Attributes:
        by: whose sites a row of the kernel walks (see `Pass`).
        paths: indices into the problem's paths.
        adds: (output, block) that an earlier group has already stored, to which this one adds.
        first: whether no group comes before this one.
    """

    problem: Problem
    contraction: Contraction
    by: Index
    paths: tuple[int, ...]
    adds: frozenset[tuple[str, int]] = field(default=frozenset(), kw_only=True)
    first: bool = field(default=True, kw_only=True)

    @property
    def multiplicity(self) -> int:
        return self.problem.multiplicity(self.problem.paths[self.paths[0]])

    def is_owned(self, name: str) -> bool:
        """Whether the row is the walking node's: read once, summed in registers, and written once."""
        return self.by is not Index.EDGE and self.problem.operand(name).index is self.by

    def is_far(self, name: str) -> bool:
        """Whether the row is that of the node at an edge's other end, whose gradients are added atomically."""
        return self.problem.operand(name).index in (Index.TARGET, Index.SOURCE) and not self.is_owned(name)

    def is_feature(self, name: str) -> bool:
        """Whether all channels share the row's numbers, whose gradients are then summed over the channels."""
        return self.problem.operand(name).channels is Channels.NONE

    def is_stored(self, name: str) -> bool:
        """Whether a gradient by an edge's row is stored by the lane of its channel."""
        return not (self.is_owned(name) or self.is_far(name) or self.is_feature(name))

    def blocks(self, name: str) -> list[int]:
        """The blocks of the operand's rows that the paths touch."""
        return self.problem.blocks(name, [self.problem.paths[n] for n in self.paths])

    def elements(self, name: str) -> list[Element]:
        """(operand, block, component) of every number of a channel that the paths touch."""
        blocks = self.problem.row(name).blocks
        return [(name, block, i) for block in self.blocks(name) for i in range(blocks[block].dim)]

    @cached_property
    def owned_inputs(self) -> list[Element]:
        return [e for name in self.contraction.inputs if self.is_owned(name) for e in self.elements(name)]

    @cached_property
    def owned_outputs(self) -> list[Element]:
        return [e for name in self.contraction.outputs if self.is_owned(name) for e in self.elements(name)]

    @cached_property
    def edge_outputs(self) -> list[Element]:
        return [e for name in self.contraction.outputs if not self.is_owned(name) for e in self.elements(name)]

    @cached_property
    def stored_blocks(self) -> frozenset[tuple[str, int]]:
        """The blocks of rows that are stored, not added."""
        stored = (name for name in self.contraction.outputs if self.is_owned(name) or self.is_stored(name))
        return frozenset((name, block) for name in stored for block in self.blocks(name))

    @cached_property
    def scales(self) -> dict[int, float]:
        """Factors of the outputs' blocks, taken out of the paths' coefficients: a multiplication a node instead of an
        edge. Only an owned output is scaled, because its blocks have few paths."""
        out = self.problem.form[OUT]
        if not self.is_owned(out):
            return {}
        return {b: unit_scale(p for p in self.problem.paths if p.blocks[OUT] == b) for b in self.blocks(out)}

    @cached_property
    def scaled_paths(self) -> list[Path]:
        """The paths, their coefficients divided by the scale of the block that they lead to."""
        paths = map(self.problem.paths.__getitem__, self.paths)
        return [_divided(path, self.scales.get(path.block(OUT), 1.0)) for path in paths]

    @cached_property
    def feature_starts(self) -> dict[int, tuple[str, int]]:
        """For each gradient of edge features, the number of its first element in `feature_elements`: the operand, and
        the first column of its row that this group writes. The first group writes all columns."""
        starts, number = {}, 0
        for name in filter(self.is_feature, self.contraction.outputs):
            columns = [self._column(*element) for element in self.elements(name)]
            first, last = (0, self.problem.row(name).length - 1) if self.first else (min(columns), max(columns))
            starts[number] = name, first
            number += last + 1 - first
        return starts

    @cached_property
    def feature_elements(self) -> list[Element | None]:
        """The gradients of edge features that this group writes; None where none of its paths contribute."""
        result: list[Element | None] = []
        for name, first in self.feature_starts.values():
            by_column = {self._column(*element): element for element in self.elements(name)}
            end = self.problem.row(name).length if self.first else max(by_column) + 1
            result += [by_column.get(column) for column in range(first, end)]
        return result

    @property
    def features(self) -> int:
        return len(self.feature_elements)

    def _column(self, name: str, block: int, component: int) -> int:
        shape = self.problem.row(name).blocks[block]
        return shape.offset + component * shape.component_stride


def _divided(path: Path, scale: float) -> Path:
    return replace(path, coefficients=tuple((i, j, k, c / scale) for i, j, k, c in path.coefficients))
