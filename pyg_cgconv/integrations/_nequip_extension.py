"""The model modifier `enable_pyg_cgconv`, which NequIP loads as an extension when it is imported."""

from __future__ import annotations

from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import model_modifier
from torch import nn


def enable_pyg_cgconv(cls: type, model: nn.Module, cuda_graphs: bool = False) -> nn.Module:
    """Has the convolutions computed by the generated kernels of pyg_cgconv, on GPUs and CPUs, in training and
    inference. With `cuda_graphs`, calls of eager models on a GPU are captured in CUDA graphs."""
    from .nequip import accelerate  # which checks NequIP's version, and this module is loaded whatever that is

    return accelerate(model, cuda_graphs=cuda_graphs)


TensorProductScatter.enable_pyg_cgconv = model_modifier(
    persistent=False, private=False, supported_compile_modes=["aotinductor"]
)(classmethod(enable_pyg_cgconv))
