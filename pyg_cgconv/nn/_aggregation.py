"""Aggregations of the layer, and the back end that they leave it."""

from __future__ import annotations

import warnings

from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.resolver import aggregation_resolver

SUMS = ("add", "sum", "mean")
"""Those that kernels know."""


def backend_for(backend: str, without_kernel: list[str], aggr: object) -> str:
    """The backend that runs: fused kernels know sums and means."""
    reasons = list(without_kernel)
    if aggr not in SUMS:
        reasons.append(f"aggr: {aggr!r} has no fused kernel, only {', '.join(map(repr, SUMS))} have")
    if not reasons or backend == "reference":
        return backend
    if backend != "auto":
        raise ValueError(f"{'; '.join(reasons)}; backend={backend!r} cannot run it, backend='reference' can")
    warnings.warn(
        f"{'; '.join(reasons)}; this layer runs on the reference backend (e3nn), which is slow and keeps every message "
        "in memory. Pass backend='reference' to say that this is meant.",
        stacklevel=3,
    )
    return "reference"


def known_aggregation(aggr: str | list[str] | Aggregation) -> str | list[str] | Aggregation:
    """What PyG knows as an aggregation.

    Raises:
        ValueError: it does not know it.
    """
    if not isinstance(aggr, (str, list, tuple, Aggregation)):
        raise ValueError(f"aggr: expected 'add', 'mean' or another of PyG's aggregations, got {aggr!r}")
    try:
        aggregation_resolver(aggr)
    except ValueError as error:
        raise ValueError(f"aggr: {error}") from error
    return aggr
