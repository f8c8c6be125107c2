"""What is compared: each peer is a function of (x, edge_attr, weight), differentiable twice, in a layout of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ..conv import TensorProductConv
from .problems import PROBLEMS


@dataclass(frozen=True)
class Convolution:
    """A peer's convolution on one graph; `layout` is that of its node features and outputs."""

    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    layout: str


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


PEERS = {"e3nn": e3nn, "cuequivariance": cuequivariance}


@cache
def reference(problem: str) -> TensorProductConv:
    """The layer on e3nn, which takes seconds to generate its code: once for all who compare with it."""
    return TensorProductConv(*PROBLEMS[problem], backend="reference")
