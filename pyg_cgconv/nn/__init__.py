"""Layers and parts of equivariant networks, as torch modules.

    conv        TensorProductConv: gather, tensor product with edge features, sum over neighbours
    graph       what that layer takes for a graph; aggregation: how it sums
    blocks      InteractionBlock: a round of message passing
    linear      Linear, SpeciesLinear: maps of channels
    gate        Gate: the nonlinearity
    products    NodeProducts: products of a node's features with themselves
    symmetric   SymmetricContraction: products of several of them, weights by element
    species     rows and matrices by species, as numbers or one-hot rows
    radial      BesselBasis, PolynomialCutoff, RadialNetwork: functions of the distance
    spherical   spherical_harmonics
    tensor_products  TensorProduct, FullyConnectedTensorProduct, ElementwiseTensorProduct, TensorSquare: e3nn's, without
                a graph

Import from here, not from the modules. TensorProductConv and InteractionBlock need PyTorch Geometric, and are loaded
when they are first asked for.
"""

from typing import TYPE_CHECKING

from .._lazy import attach
from ._gate import GATE_GAINS, Gate
from ._linear import FUSED_NODES, Linear, SpeciesLinear, fused_as_on_gpus
from ._products import NodeProducts
from ._radial import BesselBasis, PolynomialCutoff, RadialNetwork
from ._species import FEW as FEW_SPECIES
from ._species import Grouped, Species, one_hot, prepared_species, products_by_species
from ._spherical import harmonic_slopes, harmonics_by_degree, spherical_harmonics
from ._symmetric import SymmetricContraction, checked_channels, contract_polynomial
from ._tensor_products import ElementwiseTensorProduct, FullyConnectedTensorProduct, TensorProduct, TensorSquare

if TYPE_CHECKING:
    from ._blocks import InteractionBlock as InteractionBlock
    from ._blocks import wanted_irreps as wanted_irreps
    from ._conv import TensorProductConv

__all__ = [
    "FEW_SPECIES",
    "FUSED_NODES",
    "GATE_GAINS",
    "BesselBasis",
    "ElementwiseTensorProduct",
    "FullyConnectedTensorProduct",
    "Gate",
    "Grouped",
    "InteractionBlock",
    "Linear",
    "NodeProducts",
    "PolynomialCutoff",
    "RadialNetwork",
    "Species",
    "SpeciesLinear",
    "SymmetricContraction",
    "TensorProduct",
    "TensorProductConv",
    "TensorSquare",
    "checked_channels",
    "contract_polynomial",
    "fused_as_on_gpus",
    "harmonic_slopes",
    "harmonics_by_degree",
    "one_hot",
    "prepared_species",
    "products_by_species",
    "spherical_harmonics",
]

if not TYPE_CHECKING:  # to a type checker, a module with __getattr__ has every name
    __getattr__, __dir__ = attach(
        __name__, {"InteractionBlock": "._blocks", "TensorProductConv": "._conv", "wanted_irreps": "._blocks"}
    )
