"""Fast equivariant message passing for PyTorch Geometric, and what interatomic potentials need around it.

    tensor_product   which paths a product has, and how it is called
    ops              the torch operation behind everything, and sorted edges
    nn               layers and parts of networks
    potential        an interatomic potential, its neighbour lists, its ASE calculator
    integrations     models of MACE, NequIP, SevenNet and e3nn, made fast in place
    cuda_graphs      capturing CUDA graphs
    benchmark        `python -m pyg_cgconv.benchmark`: this project beside its peers
    compile          `python -m pyg_cgconv.compile`: a model's kernels compiled ahead

Beside them, `_functions` has silu, concatenations and scalings whose derivatives are few operations, `_torch` the
private interfaces of PyTorch that are used, `_e3nn` the first import of e3nn, `_lazy` the names that are loaded late,
`_checks` checks that several packages make, `_version` the version.

Arrows of import go upwards in this list; below all is `cuda_kernels`, the generator. What needs PyTorch Geometric is
loaded when it is first asked for: importing PyG replaces `torch.index_select`, which breaks torch.jit.script of other
packages' models.
"""

from typing import TYPE_CHECKING

from . import _e3nn as _e3nn
from ._lazy import attach
from ._version import __version__
from .ops import Edges

if TYPE_CHECKING:
    from .nn import (
        ElementwiseTensorProduct,
        FullyConnectedTensorProduct,
        SymmetricContraction,
        TensorProduct,
        TensorProductConv,
        TensorSquare,
    )
    from .potential import ASECalculator as ASECalculator
    from .potential import CommitteeCalculator as CommitteeCalculator
    from .potential import Potential, RadiusGraph

# A star import must not need ASE: no ASECalculator.
__all__ = [
    "Edges",
    "ElementwiseTensorProduct",
    "FullyConnectedTensorProduct",
    "Potential",
    "RadiusGraph",
    "SymmetricContraction",
    "TensorProduct",
    "TensorProductConv",
    "TensorSquare",
    "__version__",
]

if not TYPE_CHECKING:  # to a type checker, a module with __getattr__ has every name
    __getattr__, __dir__ = attach(
        __name__,
        {
            "ASECalculator": ".potential",
            "CommitteeCalculator": ".potential",
            "ElementwiseTensorProduct": ".nn",
            "FullyConnectedTensorProduct": ".nn",
            "Potential": ".potential",
            "RadiusGraph": ".potential",
            "SymmetricContraction": ".nn",
            "TensorProduct": ".nn",
            "TensorProductConv": ".nn",
            "TensorSquare": ".nn",
        },
    )
