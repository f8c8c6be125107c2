"""The floating-point type of what a model reads, without losing digits of energies."""

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

# Total energies and the properties of QM9: float32 keeps no more than about 1 meV of thousands of eV. And the cutoff of
# the edges, which a model compares with its own.
EXACT = ("energy", "energies", "y", "edge_cutoff")


class ToDtype(BaseTransform):
    """Positions, cells, forces and stresses in the floating-point type of a model; energies stay float64.

    Data sets give float64. A network of your own in float32 gets its inputs by ``transform=ToDtype(torch.float32)``.
    (:class:`pyg_cgconv.Potential` takes float64 positions as well, and computes edge vectors from them before it
    rounds.) ``energy`` and ``y``, from which a reference has to be subtracted first, stay as they are; so do integers.

    Args:
        dtype: ``torch.float32``, ``torch.float64``, or another floating-point type.
        exact: Names of attributes that stay as they are.

    Raises:
        TypeError: ``dtype`` is no floating-point type of torch, or ``exact`` no sequence of names.
    """

    def __init__(self, dtype: torch.dtype, exact: tuple[str, ...] = EXACT):
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating-point type such as torch.float32, got {dtype!r}")
        if isinstance(exact, str) or not all(isinstance(name, str) for name in exact):
            raise TypeError(f"exact: expected names of attributes such as ('energy', 'y'), got {exact!r}")
        self.dtype, self.exact = dtype, tuple(exact)

    def forward(self, data: Data) -> Data:
        for name, value in data.to_dict().items():
            if torch.is_tensor(value) and value.is_floating_point() and name not in self.exact:
                data[name] = value.to(self.dtype)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype})"
