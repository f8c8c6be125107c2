"""What a tensor product is, before anything is computed.

instructions   e3nn's lists of paths, made or checked
arguments      other arguments of e3nn's products, checked
description    a problem as a string, and what the kernel generator reads of it
mixing         modes whose paths have products of their own: linear maps of the channels of a product without weights
summands       e3nn's modes: a product as a sum of parts, a contraction each
polynomials    equivariant polynomials; symmetric: those of symmetric contractions
layout         the two orders of a row's numbers: mul_ir and ir_mul
reference      the product in plain PyTorch, by e3nn
"""

from . import _description as describe
from ._arguments import check_equal_channels, checked_arguments
from ._description import problem_of
from ._instructions import channelwise, check_channels, rejections_named, tensor_product
from ._layout import IrrepsLike, Rows, channels_last, irreps_of, shape, times, to_ir_mul, to_mul_ir
from ._reference import ReferenceProduct
from ._summands import summands, without_kernel
from ._symmetric import coefficients_of_weights, paths_of, polynomial_entries

__all__ = [
    "IrrepsLike",
    "ReferenceProduct",
    "Rows",
    "channels_last",
    "channelwise",
    "check_channels",
    "check_equal_channels",
    "checked_arguments",
    "coefficients_of_weights",
    "describe",
    "irreps_of",
    "paths_of",
    "polynomial_entries",
    "problem_of",
    "rejections_named",
    "shape",
    "summands",
    "tensor_product",
    "times",
    "to_ir_mul",
    "to_mul_ir",
    "without_kernel",
]
