"""Torch's side of the kernels: one operation for every problem and every order of derivative.

    contract    the operation and its derivatives: description and tensors in, tensor out
    edges       a graph's edges, sorted once: Edges
    shapes      rows of a contraction's operands
    cpu, cuda   a contraction there: passes, memory, launch; plan: what both make of it
    memory      large results on a CPU get memory again that earlier ones have left

The way of a tensor: nn -> contract -> cpu or cuda -> the launch of `cuda_kernels`.
"""

from ._contract import DTYPES, contract
from ._edges import EdgeList, Edges, sorted_edges

__all__ = ["DTYPES", "EdgeList", "Edges", "contract", "sorted_edges"]
