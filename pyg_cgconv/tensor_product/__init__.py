"""What a tensor product is, before anything is computed.

instructions   e3nn's lists of paths, made or checked
description    a problem as a string, and what the kernel generator reads of it
mixing         mode "uvw" with shared weights: a product without weights, and a linear map
layout         the two orders of a row's numbers: mul_ir and ir_mul
reference      the product in plain PyTorch, by e3nn
"""

from . import _description as describe
from ._description import problem_of
from ._instructions import MODE, channelwise, tensor_product
from ._layout import IrrepsLike, Rows, channels_last, irreps_of, shape, to_ir_mul, to_mul_ir
from ._mixing import MIXED, Mixing
from ._reference import ReferenceProduct

__all__ = [
    "MIXED",
    "MODE",
    "IrrepsLike",
    "Mixing",
    "ReferenceProduct",
    "Rows",
    "channels_last",
    "channelwise",
    "describe",
    "irreps_of",
    "problem_of",
    "shape",
    "tensor_product",
    "to_ir_mul",
    "to_mul_ir",
]
