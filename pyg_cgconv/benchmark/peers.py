"""What is compared: each peer is a function of (x, edge_attr, weight), differentiable twice, in the layout asked for
or, where it knows one only, in its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module

import torch
from torch import Tensor

from cuda_kernels.problem import Problem

from ..nn import TensorProductConv
from .problems import PROBLEMS


@dataclass(frozen=True)
class Convolution:
    """A peer's convolution on one graph; `layout` is that of its node features and outputs."""

    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    layout: str


@cache
def problem_of(name: str) -> Problem:
    """What this project's kernels are generated from."""
    problem = TensorProductConv(*PROBLEMS[name]).problem
    assert problem is not None, "all paths have a mode that the kernels serve"
    return problem


def ours(problem: str, layout: str, edge_index: Tensor, dtype: torch.dtype) -> Convolution:
    layer = TensorProductConv(*PROBLEMS[problem], layout=layout)
    return Convolution(lambda x, y, w: layer(x, edge_index, y, w), layout)


def e3nn(problem: str, layout: str, edge_index: Tensor, dtype: torch.dtype) -> Convolution:
    """e3nn's tensor product on gathered features; scattered by torch_scatter, or by PyTorch where that is not
    installed."""
    layer = reference(problem)
    return Convolution(lambda x, y, w: layer(x, edge_index, y, w), "mul_ir")


def cuequivariance(problem: str, layout: str, edge_index: Tensor, dtype: torch.dtype) -> Convolution:
    """NVIDIA's uniform_1d kernel with gather and scatter inside, as MACE calls it (on a CPU: its plain PyTorch
    path)."""
    cue, cuet = import_module("cuequivariance"), import_module("cuequivariance_torch")
    group = import_module("cuequivariance.group_theory.experimental.e3nn").O3_e3nn
    irreps_in, irreps_edge, kept = (cue.Irreps(group, irreps) for irreps in PROBLEMS[problem])
    if len({irrep.mul for irrep in irreps_in}) > 1:
        raise ImportError("uniform_1d takes equal multiplicities only")
    product = cue.descriptors.channelwise_tensor_product(irreps_in, irreps_edge, [ir for _, ir in kept])
    polynomial = product.flatten_coefficient_modes().squeeze_modes().polynomial
    method = "uniform_1d" if edge_index.is_cuda else "naive"
    if edge_index.is_cuda:
        import_module("cuequivariance_ops_torch")  # without it, cuequivariance would fall back in silence
    run = cuet.SegmentedPolynomial(polynomial, method=method, math_dtype=dtype).to(edge_index.device)
    source, target = edge_index[0].contiguous(), edge_index[1].contiguous()

    def convolve(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        (out,) = run([w, x, y], input_indices={1: source}, output_indices={0: target}, output_shapes={0: x})
        return out

    return Convolution(convolve, "ir_mul")


def openequivariance(
    problem: str, layout: str, edge_index: Tensor, dtype: torch.dtype, *, deterministic: bool = False
) -> Convolution:
    """OpenEquivariance's fused kernel, which adds with atomics or, if deterministic, along the sorted edges and their
    reverses."""
    if not edge_index.is_cuda:
        raise ImportError("openequivariance has no CPU kernels")
    reverses = _reverses(edge_index) if deterministic else None
    oeq = import_module("openequivariance")
    layer, number = reference(problem), oeq.torch_to_oeq_dtype(dtype)
    product = oeq.TPProblem(
        *(str(irreps) for irreps in (layer.irreps_in, layer.irreps_edge, layer.irreps_out)),
        [instruction[:5] for instruction in layer.instructions],  # without e3nn's coefficients, which it makes itself
        shared_weights=False,
        internal_weights=False,
        irrep_dtype=number,
        weight_dtype=number,
        layout=layout,
    )
    run = oeq.TensorProductConv(product, deterministic=deterministic)
    source, target = edge_index
    return Convolution(lambda x, y, w: run(x, y, w, target, source, reverses), layout)


def _reverses(edge_index: Tensor) -> Tensor:
    """Where each edge's reverse stands (E,), in a symmetric graph sorted by target, then source; deterministic
    OpenEquivariance computes wrong gradients on others, without a word.

    Raises:
        ImportError: it is another graph.
    """
    reverses = edge_index[0].argsort(stable=True)
    if not torch.equal(edge_index[:, reverses], edge_index.flip(0)):
        raise ImportError("openequivariance, deterministic, takes only symmetric graphs sorted by target, then source")
    return reverses


PEERS = {
    "e3nn": e3nn,
    "cuequivariance": cuequivariance,
    "openequivariance": openequivariance,
    "openequivariance-det": partial(openequivariance, deterministic=True),
}


@cache
def reference(problem: str) -> TensorProductConv:
    """The layer on e3nn, which takes seconds to generate its code: once for all who compare with it."""
    return TensorProductConv(*PROBLEMS[problem], backend="reference")
