"""Equivariant maps of node features, channel by channel: linear layers.

Each is written for blocks (2l+1, mul) of a row. In the layout "ir_mul" these are the numbers as they lie, and a linear
map is one matrix product over all components. In "mul_ir" they are transposed views, which a linear map copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from e3nn import o3
from torch import Tensor, nn

from cuda_kernels.linear import in_fours

from .._checks import positive_number
from .._functions import join, scale_each, without_autocast
from .._torch import NotScripted
from ..ops import DTYPES, contract
from ..tensor_product import IrrepsLike, Rows, channels_last, describe, problem_of, times
from ._species import Grouped, Species, checked, prepared_species, times_matrices

FUSED_NODES = 2048
"""The most nodes that kernels serve. On an H100 (128 channels, l = 3, 23 paths) they take, forward and backward, 70 us
for 90 nodes and 2.4 ms for 5,000; copies and matrix products 200 us and 2.1 ms."""
_fused_devices: tuple[str, ...] = ("cuda",)  # matrix products of a library serve a CPU well


@contextmanager
def fused_as_on_gpus() -> Iterator[None]:
    """Within it, a CPU runs what a GPU would run: for finding out what that is."""
    global _fused_devices
    usual, _fused_devices = _fused_devices, ("cpu", "cuda")
    try:
        yield
    finally:
        _fused_devices = usual


class Linear(NotScripted, nn.Module):
    r"""Mixes the channels of equal irreps.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W_{u v} \, x_{u m}

    for each output irrep, u over all input channels of that irrep, in however many slots they come. The same as
    :class:`e3nn.o3.Linear` (weights standard normal, no bias); an output irrep that the input lacks is zero. The
    weights are the same in both layouts.

    Args:
        irreps_in: Input irreps; an irrep may occur in several slots.
        irreps_out: Output irreps, each once.
        layout: Order of the numbers in a row: "mul_ir" (e3nn's) or "ir_mul" (a component's channels together, the
            faster).
        fused: Whether a GPU does it by one generated kernel, and each derivative by one, instead of copies and a matrix
            product for each irrep. The kernels are for up to 2,048 nodes and numbers of channels that are multiples of
            four; the rest is left to matrix products.

    Shapes:
        - **input:** (n, irreps_in.dim) in the layout, float32 or float64
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: x has not that shape, or there is no such layout.
    """

    def __init__(self, irreps_in: IrrepsLike, irreps_out: IrrepsLike, *, layout: str = "mul_ir", fused: bool = False):
        super().__init__()
        self.irreps_in, self.irreps_out, self.layout = o3.Irreps(irreps_in), distinct(irreps_out), layout
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self.slots = [[k for k, (_, ir_in) in enumerate(self.irreps_in) if ir_in == ir] for _, ir in self.irreps_out]
        fan_in = [sum(self.irreps_in[k].mul for k in slots) for slots in self.slots]
        self.scales = [1 / math.sqrt(max(1, u)) for u in fan_in]
        self._description = _fused_description(self.irreps_in, self.irreps_out) if fused and any(fan_in) else None
        self.weights = nn.ParameterList(torch.randn(u, v) for u, (v, _) in zip(fan_in, self.irreps_out, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        self._rows_in.check(x)
        if self._description is not None and x.device.type in _fused_devices and x.shape[0] <= FUSED_NODES:
            return self._fused(self._description, x)
        blocks, out = self._rows_in.split(x), []
        weights = scale_each(self.weights, self.scales)
        for slots, weight, (_, dim) in zip(self.slots, weights, self._rows_out.blocks, strict=True):
            channels = [blocks[k] for k in slots] or [x.new_empty(x.shape[0], dim, 0)]
            # In mul_ir this copies. The product from the left, weight.T times the block as it lies, would not, but
            # without gradients torch then repeats the weight for each node: four times slower on a CPU.
            out.append(times(channels_last(join(channels)), weight))
        return self._rows_out.join(out)

    @without_autocast
    def _fused(self, description: str, x: Tensor) -> Tensor:
        """By the generated kernel, which knows ir_mul only."""
        weights = join([weight.flatten() for weight in self.weights])
        _check_same(x, weights)
        return self._rows_out.from_ir_mul(contract(description, (self._rows_in.to_ir_mul(x), weights)))

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}, layout={self.layout!r}"


def _fused_description(irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> str | None:
    """What the kernels are generated from, None if they do not serve such multiplicities."""
    description = describe.linear(irreps_in, irreps_out)
    return description if in_fours(problem_of(description, "float32")) else None


def _check_same(x: Tensor, weights: Tensor) -> None:
    if x.device != weights.device:
        raise ValueError(f"x: on {x.device}, but the weights are on {weights.device}; move one of them with .to()")
    if x.dtype != weights.dtype:
        raise TypeError(f"x: dtype {x.dtype} differs from that of the weights, {weights.dtype}; convert one of them")
    if x.dtype not in DTYPES:
        raise TypeError(f"x: dtype {x.dtype} has no kernel; convert x and the layer to float32 or float64")


class SpeciesLinear(NotScripted, nn.Module):
    r"""A :class:`Linear` with weights of its own for each species.

    .. math::
        y_{v m} = \frac{1}{\sqrt{U}} \sum_{u=1}^{U} W^{(s)}_{u v} \, x_{u m}, \qquad s \text{ the atom's species}

    NequIP's self-connection (a fully connected tensor product with the one-hot species), up to normalisation. Of few
    species it is one matrix product with the species' channels side by side. Of many, atoms of one species go through
    its matrix together, so that the whole periodic table takes the time of its species that occur; not so in programs
    of torch.compile and torch.export, which multiply all matrices and serve any number of atoms.

    Args:
        irreps_in: Input irreps, each once; those that the output lacks are not read.
        irreps_out: Output irreps, each once; one that the input lacks is zero.
        num_species: Number of species S.
        layout: As in :class:`Linear`.
        fused: As in :class:`Linear`.

    Shapes:
        - **input:** features (n, irreps_in.dim) in the layout, species as numbers (n,) below S, or as one-hot rows
          (n, S) in the same dtype
        - **output:** (n, irreps_out.dim) in the layout

    Raises:
        ValueError: input and output have no irrep in common, ``num_species`` is not positive, an input has not that
            shape, or there is no such layout.
        TypeError: ``num_species`` is no whole number, or one-hot rows have another dtype than the features.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        num_species: int,
        *,
        layout: str = "mul_ir",
        fused: bool = False,
    ):
        super().__init__()
        num_species = positive_number("num_species", num_species)
        self.irreps_in, self.irreps_out, self.layout = distinct(irreps_in), distinct(irreps_out), layout
        self._rows_in, self._rows_out = Rows(self.irreps_in, layout), Rows(self.irreps_out, layout)
        self.read = [ir in self.irreps_out for _, ir in self.irreps_in]
        if not any(self.read):
            raise ValueError(f"irreps_out: {self.irreps_out} has no irrep of irreps_in, {self.irreps_in}")
        species_by_channels = [
            (num_species * mul, ir) for (mul, ir), read in zip(self.irreps_in, self.read, strict=True) if read
        ]
        # Its input is made here, in the faster layout. The output is small and is converted.
        self.linear = Linear(species_by_channels, self.irreps_out, layout="ir_mul", fused=fused)
        self.num_species = num_species

    def forward(self, x: Tensor, species: Species) -> Tensor:
        species = checked("species", species, x, self.num_species)
        blocks = [channels_last(block) for block, read in zip(self._rows_in.split(x), self.read, strict=True) if read]
        if isinstance(species, Tensor) and not species.is_floating_point():
            species = prepared_species(species, self.num_species, x.dtype)
        if isinstance(species, Grouped):
            return self._of_groups(blocks, species)
        # Only one species' channels are not zero: the fan-in is that of one species.
        species = species * math.sqrt(self.num_species)
        side_by_side = [(block[:, :, None, :] * species[:, None, :, None]).flatten(1) for block in blocks]
        return self._rows_out.from_ir_mul(self.linear(join(side_by_side)))

    def _of_groups(self, blocks: list[Tensor], species: Grouped) -> Tensor:
        out, linear = [], self.linear
        scales = [scale * math.sqrt(self.num_species) for scale in linear.scales]
        weights = scale_each(linear.weights, scales)
        for slots, weight, (_, dim) in zip(linear.slots, weights, self._rows_out.blocks, strict=True):
            block = blocks[slots[0]] if slots else blocks[0].new_empty(blocks[0].shape[0], dim, 0)
            matrices = weight.unflatten(0, (self.num_species, block.shape[-1]))
            out.append(times_matrices(block, matrices, species).flatten(1))
        return self._rows_out.from_ir_mul(join(out).index_select(0, species.place))

    def extra_repr(self) -> str:
        return f"num_species={self.num_species}, layout={self.layout!r}"


def distinct(irreps: IrrepsLike) -> o3.Irreps:
    slots = o3.Irreps(irreps)
    if len({ir for _, ir in slots}) < len(slots):
        raise ValueError(f"irreps: expected each irrep once, got {slots}; Irreps.sort and simplify merge the slots")
    return slots
