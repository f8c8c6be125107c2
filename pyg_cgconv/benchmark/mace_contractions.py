"""MACE's own symmetric contraction, on e3nn."""

from __future__ import annotations

from ..integrations.mace import coefficients_of_weights  # first: it says which version is missing

# isort: split
import torch
from e3nn import o3
from mace.modules.wrapper_ops import SymmetricContractionWrapper
from torch import Tensor, nn

from .kind import Missing, default_dtype


def contraction(irreps_in: o3.Irreps, irreps_out: o3.Irreps, correlation: int, elements: int) -> nn.Module:
    """As models of MACE have it, in float64. Where cuEquivariance is installed, MACE leaves out paths that others are
    sums of."""
    with default_dtype(torch.float64):
        return SymmetricContractionWrapper(irreps_in, irreps_out, correlation, num_elements=elements)


def coefficients(layer: nn.Module) -> Tensor:
    """(paths, entries) of its polynomials; paths in the order of its parameters.

    Raises:
        Missing: they have other monomials.
    """
    found = coefficients_of_weights(layer)
    if found is None:
        raise Missing("the U matrices of MACE are not those of equivariant polynomials")
    return found.T
