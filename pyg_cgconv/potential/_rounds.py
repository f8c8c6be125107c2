"""Rounds of message passing over all edges at once, or piece by piece where a large system asks for memory.

At once, a block keeps for the gradient what it makes of each edge: radial functions and networks, weights of the
convolution, some kilobytes an edge. Piece by piece it computes the new features of some targets after those of others,
keeps its input, and makes the rest again for the gradient (Chen et al., `Training deep nets with sublinear memory cost
<https://arxiv.org/abs/1604.06174>`_).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._torch import in_forward_mode, is_plain
from ..cuda_graphs import is_for_graph
from ..nn import InteractionBlock, Species, prepared_species
from ..ops import Edges, Neighbors, sorted_neighbors
from ._atoms import Atoms
from ._edge_functions import EdgeFunctions

if TYPE_CHECKING:
    from ._potential import Potential

FEWEST_EDGES = 100_000
"""A GPU's pieces have as many or more, which keep it busy, and smaller structures are computed at once."""

Update = Callable[[Any, Tensor | tuple[Tensor, Tensor]], Tensor]
"""A block and features to new features; a pair is those of all atoms and of own atoms."""


class Piece(NamedTuple):
    """Some targets, one after the other, and the edges that end at them.

    Attributes:
        species: Of the targets.
        edges: From all atoms to the targets.
        vectors: Of the edges (e, 3).
    """

    species: Tensor
    edges: Edges
    vectors: Tensor


def rounds(potential: Potential, atoms: Atoms, owned: int | None) -> Update:
    """What a block does with features.

    Args:
        owned: How many atoms are updated, the first of all, if there are ghosts behind them.
    """
    most = edges_at_a_time(potential, atoms)
    return _at_once(potential, atoms, owned) if most is None else _in_pieces(potential, atoms, owned, most)


def edges_at_a_time(potential: Potential, atoms: Atoms) -> int | None:
    """The most edges of a piece, None for all at once."""
    given, vectors = potential.edges_at_a_time, atoms.vectors
    if not is_plain(vectors) or in_forward_mode() or is_for_graph(vectors):
        return None
    edges, nodes = vectors.shape[0], atoms.species.shape[0]
    if given is None and edges > FEWEST_EDGES and vectors.is_cuda and not potential.training:
        memory = torch.cuda.get_device_properties(vectors.device).total_memory
        given = edges_that_fit(potential, edges, nodes, memory)
    return None if given is None or edges <= given else given


def edges_that_fit(potential: Potential, edges: int, nodes: int, memory: int) -> int | None:
    """The most edges of a piece for a GPU with so many bytes; None if half of them serve all edges at once.

    It depends on nothing else that happens to be in the memory: sums are in the same order in each call. Measured on a
    CPU, the preset frames-medium in float32 takes 11.9 kB an edge and 78 kB an atom at once, and 11 kB an edge of a
    piece of liquid, of which 0.7 kB are the atoms'. Here it is taken to be 12.3, 81 and 11.
    """
    number = torch.finfo(potential.dtype).bits // 8
    blocks = [_sizes(block) for block in potential.blocks]
    of_edge = sum(weights + 2 * hidden for weights, hidden, _ in blocks) + max(weights for weights, _, _ in blocks)
    of_node = 4 * sum(messages for _, _, messages in blocks)
    if number * (edges * of_edge + nodes * of_node) <= memory / 2:
        return None
    of_piece = max(3 * weights + 4 * hidden + 4 * messages * nodes / edges for weights, hidden, messages in blocks)
    return max(FEWEST_EDGES, int(memory / 8 / number / of_piece))


def _sizes(block: Any) -> tuple[int, int, int]:
    """Weights of an edge, hidden features of an edge, numbers of a node's messages."""
    return block.conv.weight_numel, sum(block.radial.widths[1:-1]), block.conv.irreps_out.dim


def _at_once(potential: Potential, atoms: Atoms, owned: int | None) -> Update:
    functions = _functions(potential)(atoms.vectors) if atoms.functions is None else atoms.functions
    species, edge_species = _rows(potential, atoms, owned) if atoms.rows is None else atoms.rows
    edges = _sorted(atoms)
    return lambda block, x: block(x, species, edges, *functions, edge_species)


def made_ahead(potential: Potential, atoms: Atoms, slopes: bool) -> Atoms:
    """The atoms with all that blocks read of them and no weight changes, where edges are computed at once."""
    functions = functions_at_once(potential, atoms)
    if functions is None:
        return atoms
    edges = _sorted(atoms).both_ways()
    known = functions(atoms.vectors)
    of_functions = functions.slopes(atoms.vectors) if slopes else None
    rows = _rows(potential, atoms, None)
    return replace(atoms, edge_index=edges, functions=known, slopes=of_functions, rows=rows)


def _sorted(atoms: Atoms) -> Edges:
    edges = atoms.edge_index
    return edges if isinstance(edges, Edges) else sorted_neighbors(edges, atoms.species.shape[0])


def _rows(potential: Potential, atoms: Atoms, owned: int | None) -> tuple[Species, Species | None]:
    """The species of atoms that are updated, and those of sources, if radial networks know them."""
    species = atoms.species if owned is None else atoms.species[:owned]
    return _prepared(potential, species), _edge_species(potential, atoms.species, atoms.source)


def _in_pieces(potential: Potential, atoms: Atoms, owned: int | None, most: int) -> Update:
    pieces = list(_pieces(atoms, atoms.species.shape[0] if owned is None else owned, most))

    def received(block: InteractionBlock, sent: Tensor, x: Tensor, piece: Piece) -> Tensor:
        functions = _functions(potential)(piece.vectors)
        features = *functions, _edge_species(potential, atoms.species, piece.edges.source)
        return block.receive(sent, x, _prepared(potential, piece.species), piece.edges, *features)

    def update(block: InteractionBlock, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        sources, x = x if isinstance(x, tuple) else (x, x)
        sent, targets = block.send(sources), x.split([len(piece.species) for piece in pieces])
        new = [
            checkpoint(received, block, sent, each, piece, use_reentrant=False, preserve_rng_state=False)
            for each, piece in zip(targets, pieces, strict=True)
        ]
        return torch.cat(new)

    return update


def functions_at_once(potential: Potential, atoms: Atoms) -> EdgeFunctions | None:
    """The functions of all edges, None where they are made piece by piece."""
    return _functions(potential) if edges_at_a_time(potential, atoms) is None else None


def _functions(potential: Potential) -> EdgeFunctions:
    return EdgeFunctions(potential.hyperparameters["lmax"], potential.basis, potential.envelope)


def _edge_species(potential: Potential, species: Tensor, source: Tensor):
    """The sources' species, if radial networks know them."""
    if not potential.hyperparameters["radial_species"]:
        return None
    return _prepared(potential, species[source], groups=False)


def _prepared(potential: Potential, species: Tensor, groups: bool = True):
    return prepared_species(species, len(potential.atomic_numbers), potential.dtype, groups)


def _pieces(atoms: Atoms, targets: int, most: int) -> Iterator[Piece]:
    """All targets and edges. The edges of one target stay together, however many they are."""
    source, target, vectors = atoms.source, atoms.target, atoms.vectors
    if (target.diff() < 0).any():
        target, order = target.sort(stable=True)
        source, vectors = source[order], vectors.index_select(0, order)
    ends = target.bincount(minlength=targets).cumsum(0).cpu().numpy()
    bounds = _bounds(ends, most)
    lengths = np.diff(ends[np.array(bounds[1:]) - 1], prepend=0).tolist()
    parts = zip(source.split(lengths), target.split(lengths), vectors.split(lengths), strict=True)
    for (first, last), (source, target, vectors) in zip(pairwise(bounds), parts, strict=True):
        edges = Neighbors((source, target - first), atoms.species.shape[0], last - first)
        yield Piece(atoms.species[first:last], edges, vectors)


def _bounds(ends: np.ndarray, most: int) -> list[int]:
    """Targets that a piece begins with, and their number at the end.

    Args:
        ends: Edges of each target and of those before it (targets,).
        most: Edges of a piece; a single target may have more.
    """
    bounds = [0]
    while bounds[-1] < len(ends):
        first = bounds[-1]
        before = ends[first - 1] if first else 0
        bounds.append(max(first + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return bounds
