"""Fast equivariant message passing for PyTorch Geometric."""

from .conv import TensorProductConv

__all__ = ["TensorProductConv"]
