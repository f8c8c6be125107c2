"""Rows of tables by species, and matrix products with a matrix for each species.

Few species are one-hot rows, of which matrix products make both. Many are numbers: their rows are looked up, and nodes
of one species are put side by side, so that each takes the time of its own species only.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from .._torch import is_traced, untransformed
from ..ops import checks_on_host

FEW = 8
"""Species for which one-hot rows are as fast."""
ROWS = 16
"""Nodes of one species whose products are done together."""
LONELY = 4
"""Nodes by species below which a GPU, which does not know what occurs, is faster node by node."""


class Grouped(NamedTuple):
    """Nodes in groups of one species, with equally many places, of which some stay free.

    Attributes:
        species: Of each node (n,).
        node: The node at each place (places of all groups,); at free places any.
        place: The place of each node (n,).
        group: The species of each group (groups,).
    """

    species: Tensor
    node: Tensor
    place: Tensor
    group: Tensor


Species: TypeAlias = Tensor | Grouped
"""Numbers (n,), one-hot rows (n, S), or what :func:`prepared_species` made of numbers."""


def prepared_species(species: Tensor, count: int, dtype: torch.dtype, groups: bool = True) -> Species:
    """What several layers may be given in place of numbers (n,): made once.

    Args:
        groups: whether there are matrices for each species among them.
    """
    if in_rows(species, count):
        return one_hot(species, count, dtype)
    return grouped(species, count) if groups else species


def in_rows(species: Tensor, count: int) -> bool:
    """Whether numbers become one-hot rows: those of few species, and in programs that are recorded, which shall serve
    any number of nodes."""
    return count <= FEW or is_traced(species)


def one_hot(species: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """A row for each number (n, count). torch's own asks for the smallest and the largest number, which a program that
    is being traced has not."""
    return torch.zeros(species.shape[0], count, dtype=dtype, device=species.device).scatter(1, species[:, None], 1.0)


def grouped(species: Tensor, count: int) -> Grouped:
    """Nodes side by side with others of their species. Nothing waits for a GPU: there it makes as many groups as there
    may be."""
    nodes = species.shape[0]
    if species.is_cuda and nodes <= LONELY * count:
        each = torch.arange(nodes, device=species.device)
        return Grouped(species, each, each, species)
    numbers = torch.arange(count, device=species.device)
    of_species = (species[:, None] == numbers).sum(0)
    groups = (of_species + (ROWS - 1)) // ROWS
    end = groups.cumsum(0)
    total = nodes // ROWS + count if species.is_cuda else int(groups.sum())
    group = torch.searchsorted(end, torch.arange(total, device=species.device), right=True).clamp(max=count - 1)
    order = torch.argsort(species, stable=True)
    sorted_species = species[order]
    rank = torch.arange(nodes, device=species.device) - (of_species.cumsum(0) - of_species)[sorted_species]
    places = (end - groups)[sorted_species] * ROWS + rank
    node = torch.zeros(total * ROWS, dtype=torch.int64, device=species.device).scatter(0, places, order)
    return Grouped(species, node, torch.empty_like(order).scatter(0, order, places), group)


def checked(name: str, species: Species, features: Tensor, count: int) -> Species:
    """The species of nodes or edges with these features (n, ...), of which there are `count`.

    Raises:
        TypeError: they are no tensor, or one-hot rows in another dtype than the features; not so under autocast, which
            makes them alike.
        ValueError: they are neither numbers below `count` nor one-hot rows in a floating dtype; or numbers of which
            torch.vmap gives each call its own.
    """
    if isinstance(species, Grouped):
        return species
    rows = features.shape[0]
    if not isinstance(species, Tensor):
        raise TypeError(f"{name}: expected numbers ({rows},) below {count}, got {type(species).__name__}")
    integers = not species.is_floating_point() and not species.is_complex() and species.dtype != torch.bool
    if tuple(species.shape) != ((rows,) if integers else (rows, count)):
        raise ValueError(
            f"{name}: expected numbers ({rows},) from 0 to {count - 1}, or one-hot rows ({rows}, {count}) in the dtype "
            f"of the features, got {species.dtype} {tuple(species.shape)}"
        )
    if not integers:
        if species.dtype != features.dtype and not torch.is_autocast_enabled(features.device.type):
            raise TypeError(
                f"{name}: one-hot rows in {species.dtype}, but the features are in {features.dtype}; convert them, or "
                f"give numbers ({rows},)"
            )
        return species
    species = untransformed(name, species)
    if rows and checks_on_host(species):
        least, most = (int(end) for end in species.aminmax())
        if least < 0 or most >= count:
            raise ValueError(f"{name}: expected numbers from 0 to {count - 1}, got {least} to {most}")
    return species.long()


def rows_of(table: Tensor, species: Species) -> Tensor:
    """The row of a table (S, k) that each species has (n, k)."""
    numbers = species.species if isinstance(species, Grouped) else species
    if numbers.is_floating_point():
        return numbers @ table
    if len(table) <= FEW:
        return one_hot(numbers, len(table), table.dtype) @ table
    return functional.embedding(numbers, table)


def times_matrices(block: Tensor, matrices: Tensor, species: Grouped) -> Tensor:
    """Products of blocks (n, d, u) of nodes with the matrix (S, u, v) of their species, at the places of the groups
    (places, d, v)."""
    places, groups, (_, components, channels) = len(species.node), len(species.group), block.shape
    rows = places // max(groups, 1) * components
    placed = block.index_select(0, species.node).reshape(groups, rows, channels)
    products = placed @ matrices.index_select(0, species.group)
    return products.view(places, components, matrices.shape[-1])


def products_by_species(block: Tensor, matrices: Tensor, species: Tensor | Grouped) -> Tensor:
    """Products of blocks (n, d, u) of nodes with the matrix (u, S, v) of their species, (n, d, v).

    Args:
        species: One-hot rows, or groups. With these, products are at the places of the groups.
    """
    if isinstance(species, Grouped):
        return times_matrices(block, matrices.transpose(0, 1), species)
    return (block[:, :, :, None] * species[:, None, None, :]).flatten(2) @ matrices.flatten(0, 1)
