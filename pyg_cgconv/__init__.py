"""Fast equivariant message passing for PyTorch Geometric, and what interatomic potentials need around it."""

from .conv import TensorProductConv
from .neighbors import RadiusGraph
from .potential import Potential

__all__ = ["Potential", "RadiusGraph", "TensorProductConv"]  # a star import must not need ASE: no ASECalculator


def __getattr__(name: str):
    """ASECalculator, imported when it is asked for, because ASE is optional."""
    if name == "ASECalculator":
        from .calculator import ASECalculator

        return ASECalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "ASECalculator"]
