"""Torch's side of the kernels: one operation for every problem and every order of derivative.

    contract    the operation and its derivatives: description and tensors in, tensor out
    edges       a graph's edges, sorted once: Edges
    cpu, cuda   a contraction there: passes, memory, launch
    memory      large results on a CPU get memory again that earlier ones have left
    functions   silu, concatenations and scalings whose derivatives are few operations

The way of a tensor: nn -> contract -> cpu or cuda -> the launch of `cuda_kernels`.
"""

from ._contract import DTYPES, contract
from ._edges import EdgeList, Edges, sorted_edges
from ._functions import join, scale_each, silu

__all__ = ["DTYPES", "EdgeList", "Edges", "contract", "join", "scale_each", "silu", "sorted_edges"]
