"""Frames that lie on the device, and batches gathered there by number, filled up to a given size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from train.columns import blocks, num_atoms, num_edges, values_of
from train.frame_table import FrameTable
from train.padding import PaddedSize, PaddedSizes

# What potentials and losses read, and of what it has a row each.
ROWS = {
    "z": "atom",
    "pos": "atom",
    "forces": "atom",
    "energies": "atom",
    "charges": "atom",
    "edge_index": "edge",
    "edge_shift": "edge",
    "cell": "frame",
    "energy": "frame",
    "stress": "frame",
    "dipole": "frame",
    "charge": "frame",
    "pbc": "frame",
    "weight": "frame",
    "head": "frame",
    "y": "frame",
}


class PaddedFrames:
    """Frames kept whole on a device, from which :meth:`batch` gathers padded batches without asking the device.

    A padded batch is the batch that PyG would make of the frames, with one frame of padding behind them. Its atoms have
    no neighbours within the cutoff, so that they and their edges get energies, forces and derivatives by the weights
    that are exactly zero, or constant; its labels are NaN, which stands for no label. Losses and gradients are those of
    the frames.

    Args:
        frames: frames with neighbour lists, as :class:`~pyg_cgconv.RadiusGraph` makes them. All must have the same of
            the attributes in :data:`ROWS`; batches have these and no others.
        cutoff: of the potential, Angstrom.
        device: where they are kept.

    Raises:
        ValueError: frames differ in their attributes, an attribute has a wrong number of rows, or edges are not sorted
            by target.
    """

    def __init__(self, frames: Sequence[Data], cutoff: float, device: torch.device | str):
        names = _common_names(frames)
        _check_sorted(frames)
        self.cutoff, self.device = float(cutoff), torch.device(device)
        self._values = {  # one after the other, so that the host has no copy of all
            name: values_of(frames, name, _row_axis(name)).to(self.device) for name in names
        }
        atoms, edges = num_atoms(frames), num_edges(frames)
        _check_rows(self._values, {"atom": atoms.sum(), "edge": edges.sum(), "frame": len(frames)})
        self.sizes = PaddedSizes(atoms, edges)
        self._num_atoms, self._num_edges = (torch.from_numpy(count).to(self.device) for count in (atoms, edges))
        self._first_atom, self._first_edge = (n.cumsum(0) - n for n in (self._num_atoms, self._num_edges))

    @staticmethod
    def bytes_needed(frames: Sequence[Data]) -> int:
        """Memory that the frames will take on the device."""
        if isinstance(frames, FrameTable):
            return frames.nbytes([name for name in ROWS if name in frames.columns.names()])
        return sum(frame[name].nbytes for frame in frames for name in _names(frame))

    def size_of(self, numbers: Tensor) -> PaddedSize:
        """The size to which a batch of the frames with these ``numbers``, on the host, is filled up."""
        return self.sizes.size_of(numbers.numpy())

    def batch(self, numbers: Tensor, size: PaddedSize) -> Batch:
        """The padded batch of the frames with these ``numbers`` (B,) int64, on the device.

        Every operation has shapes that follow from ``size`` alone, so that it can be captured in a CUDA graph. That
        ``size`` holds the frames is not checked.
        """
        atoms = _places(numbers, self._num_atoms, self._first_atom, size.atoms)
        edges = _places(numbers, self._num_edges, self._first_edge, size.edges)
        values = {}
        for name, stored in self._values.items():
            if name == "pos":
                # Even and odd atoms at two places: padding edges join one with the next.
                place = (atoms.position - atoms.begins[-1]).remainder(2) * (2 * self.cutoff)
                values[name] = torch.where(atoms.padding[:, None], place[:, None].to(stored), stored[atoms.row])
            elif name == "edge_index":
                edge_index = torch.where(
                    edges.padding, _padding_edges(edges, atoms), stored[:, edges.row] + atoms.begins[edges.structure]
                )
                values[name] = EdgeIndex(edge_index, sparse_size=(size.atoms, size.atoms), sort_order="col")
            elif name == "z":
                values[name] = stored[atoms.row]  # a species that the potential knows
            elif ROWS[name] == "atom":  # labels
                padding = atoms.padding[:, None] if stored.dim() > 1 else atoms.padding
                values[name] = stored[atoms.row].masked_fill(padding, torch.nan)
            elif name == "edge_shift":
                values[name] = stored[edges.row].masked_fill(edges.padding[:, None], 0)
            else:
                values[name] = torch.cat([stored[numbers], _padding_row(name, stored)])
        ptr = torch.cat([atoms.begins, atoms.begins.new_full((1,), size.atoms)])
        return Batch(**values, batch=atoms.structure, ptr=ptr)


@dataclass(frozen=True)
class _Places:
    """Where the n atoms (or edges) of a padded batch of B frames come from.

    Attributes:
        position: 0 to n - 1.
        structure: (n,) the frame in the batch, B for padding.
        begins: (B + 1,) the position of each frame's first atom, then of the padding's.
        row: (n,) the row among the atoms of all frames; 0 for padding.
        padding: (n,) whether it is padding.
    """

    position: Tensor
    structure: Tensor
    begins: Tensor
    row: Tensor
    padding: Tensor


def _places(numbers: Tensor, counts: Tensor, firsts: Tensor, n: int) -> _Places:
    """Of frames with these ``numbers``, where frame k has ``counts[k]`` rows from row ``firsts[k]`` on."""
    ends = counts[numbers].cumsum(0)
    begins = torch.cat([ends.new_zeros(1), ends])
    position = torch.arange(n, device=ends.device)
    structure = torch.searchsorted(ends, position, right=True)
    padding = structure == len(numbers)
    offset = torch.cat([firsts[numbers] - begins[:-1], ends.new_zeros(1)])
    row = (position + offset[structure]).masked_fill(padding, 0)
    return _Places(position, structure, begins, row, padding)


def _padding_edges(edges: _Places, atoms: _Places) -> Tensor:
    """Sources and targets (2, E) of padding edges: dealt out evenly to the padding atoms, sorted by target."""
    first = atoms.begins[-1]
    number, count = edges.position - edges.begins[-1], len(edges.position) - edges.begins[-1]
    target = number.clamp(min=0) * (len(atoms.position) - first) // count.clamp(min=1)
    source = (target - 1).abs()  # the atom before, of the first one the second
    return torch.stack([source, target]) + first


def _padding_row(name: str, stored: Tensor) -> Tensor:
    """What a frame of padding has (1, ...): a cell with a volume, no label, no charge and no weight."""
    if name == "cell":
        return torch.eye(3, dtype=stored.dtype, device=stored.device).expand_as(stored[:1])
    if name in ("weight", "charge"):
        return torch.zeros_like(stored[:1])
    return stored.new_full(stored[:1].shape, torch.nan if stored.is_floating_point() else 0)


def _common_names(frames: Sequence[Data]) -> list[str]:
    if not len(frames):
        raise ValueError("frames: none given, expected at least one")
    if isinstance(frames, FrameTable):  # they are alike
        return _names(frames[0])
    found = [_names(frame) for frame in frames]
    odd = next((i for i, names in enumerate(found) if names != found[0]), None)
    if odd is not None:
        raise ValueError(
            f"frames: frame {odd} has the attributes {found[odd]}, frame 0 {found[0]}; give all the same, NaN for a "
            "missing label"
        )
    missing = {"z", "pos", "edge_index"} - set(found[0])
    if missing:
        raise ValueError(f"frames: without {sorted(missing)}; make the edges with pyg_cgconv.RadiusGraph(cutoff)")
    return found[0]


def _names(frame: Data) -> list[str]:
    given = set(frame.keys())
    return [name for name in ROWS if name in given]


def _row_axis(name: str) -> int:
    return 1 if name == "edge_index" else 0


def _check_rows(together: dict[str, Tensor], counts: dict[str, int]) -> None:
    for name, value in together.items():
        rows, owner = value.shape[_row_axis(name)], ROWS[name]
        if rows != counts[owner]:
            raise ValueError(
                f"frames: {name} has {rows} rows in all, expected one for each {owner}, {counts[owner]} in all"
            )


def _check_sorted(frames: Sequence[Data]) -> None:
    first = 0
    for block in blocks(frames):
        target = values_of(block, "edge_index", 1)[1].cpu()
        owner = torch.arange(len(block)).repeat_interleave(torch.from_numpy(num_edges(block)))
        falls = (target.diff() < 0) & (owner.diff() == 0)
        if falls.any():
            raise ValueError(
                f"frames: the edges of frame {first + int(owner[:-1][falls][0])} are not sorted by target; make them "
                "with pyg_cgconv.RadiusGraph(cutoff)"
            )
        first += len(block)
