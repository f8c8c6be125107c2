"""Checks of edges: on a CPU always, on a GPU where they are asked for."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .._torch import assert_on_device, is_traced
from ..cuda_graphs import is_captured

CHECK = "PYG_CGCONV_CHECK"
"""The environment variable that has indices on a GPU checked on the host, as those on a CPU are: each call then waits
for the GPU."""


def checks_on_host(node: Tensor) -> bool:
    """Whether the host reads these indices, and may wait for the device that they are on."""
    if is_traced(node) or node.is_meta:
        return False
    return not node.is_cuda or (os.environ.get(CHECK, "0") not in ("", "0") and not is_captured(node))


def check_nodes(source: Tensor, target: Tensor, sources: int, targets: int) -> None:
    """Raises a ValueError, or on a GPU ends the program, unless the ends of all edges are nodes."""
    on_host = checks_on_host(target) and not is_traced(source)
    _check_range("source", source, sources, on_host)
    _check_range("target", target, targets, on_host)


def _check_range(end: str, node: Tensor, nodes: int, on_host: bool) -> None:
    rows = "x" if end == "source" else "the output"
    inside = ((node >= 0) & (node < nodes)).all()
    if not on_host:  # to ask the host would stall every call, or cannot be traced
        assert_on_device(inside, f"edge_index: a {end} node is not one of the rows of {rows}; see {CHECK}")
    elif not inside:
        raise ValueError(
            f"edge_index: a {end} node is not in 0..{nodes - 1}, the rows of {rows}; it has nodes {node.min().item()} "
            f"to {node.max().item()}. For a bipartite graph give the numbers of nodes: `size` to the layer, `sources` "
            "and `targets` to Edges."
        )


def check_sorted(target: Tensor) -> None:
    if not (target[1:] >= target[:-1]).all():
        first = int((target[1:] < target[:-1]).nonzero()[0]) + 1
        raise ValueError(
            f"edge_index: an EdgeIndex that says it is sorted by its targets, but edge {first} ends at node "
            f"{int(target[first])}, the one before at {int(target[first - 1])}; leave out sort_order, or sort it"
        )


def check_number(name: str, number: int) -> None:
    if not isinstance(number, (int, torch.SymInt)) or isinstance(number, bool):
        raise TypeError(f"{name}: expected a number of nodes, got {number!r}")
    if isinstance(number, int) and number < 0:
        raise ValueError(f"{name}: expected a number of nodes, 0 or more, got {number}")
