"""Torch's side of the kernels: one operation for every problem and every order of derivative.

    contract      description and tensors in, tensor out; derivatives in reverse and forward mode
    formulas      a derivative as a call of another contraction
    batch         torch.vmap: a batch of contractions as one
    operation     the operation of torch that traced programs contain
    edges         a graph's edges, sorted once: Edges, Neighbors; edge_checks: what is refused
    groups        nodes by their group, such as their element
    shared_edges  one sort for all calls with one edge_index
    run           a contraction's kernels on a device
    cpu, cuda     passes, memory, launch there; plan: what both make of a contraction
    shapes        rows of a contraction's operands
    activations   silu and gates, their derivatives as one kernel each in a CUDA graph
    ahead         kernels compiled before they are needed
    memory        large results on a CPU get memory again that earlier ones have left

The way of a tensor: nn -> contract -> run -> cpu or cuda -> the launch of `cuda_kernels`.
"""

from ._activations import Gates, gated, silu
from ._ahead import compile_for_gpu, compile_gates, recorded, work_for_threads
from ._contract import contract
from ._edge_checks import check_nodes, checks_on_host
from ._edges import FLOWS, EdgeList, Edges, Neighbors, told_sizes
from ._groups import Groups
from ._run import DTYPES
from ._shared_edges import sorted_edges, sorted_groups, sorted_neighbors

__all__ = [
    "DTYPES",
    "FLOWS",
    "EdgeList",
    "Edges",
    "Gates",
    "Groups",
    "Neighbors",
    "check_nodes",
    "checks_on_host",
    "compile_for_gpu",
    "compile_gates",
    "contract",
    "gated",
    "recorded",
    "silu",
    "sorted_edges",
    "sorted_groups",
    "sorted_neighbors",
    "told_sizes",
    "work_for_threads",
]
