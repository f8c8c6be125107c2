"""Fast equivariant message passing for PyTorch Geometric, and what interatomic potentials need around it."""

from .conv import TensorProductConv
from .neighbors import RadiusGraph
from .potential import Potential

__all__ = ["Potential", "RadiusGraph", "TensorProductConv"]
