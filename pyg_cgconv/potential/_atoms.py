"""What a potential reads from a PyG batch of atoms: checked, and named as the equations name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from .._torch import untransformed, without_transforms
from ..nn import Species
from ..ops import Edges, checks_on_host

MIN_LENGTH_SQUARED = 1e-12  # Angstrom^2; keeps the derivatives of the length finite where two atoms coincide


@dataclass(frozen=True)
class Atoms:
    """A batch of B structures with n atoms and E edges.

    Attributes:
        species: Row of each atom's species in the potential's table (n,) int64; -1 if it has none.
        edge_index: (2, E), as given, or sorted.
        source: Source j of each edge (E,) int64.
        target: Target i of each edge (E,) int64.
        vectors: Edge vectors r_ij (E, 3) in the potential's dtype, Angstrom; they know their gradient.
        structure: The structure of each atom (n,) int64.
        num_structures: B.
        cell: Lattice vectors (B, 3, 3) in the dtype of the positions, or None.
        head: The number of each structure's head (B,) int64, or None of a potential without heads.
        functions: Spherical harmonics (E, (lmax + 1)^2) and radial functions (E, num_radial) of the edge vectors, or
            None as long as nobody has made them.
        slopes: Their derivatives by the vectors (E, (lmax + 1)^2 + num_radial, 3), or None.
        rows: The species of atoms and those of sources as blocks take them, or None.
    """

    species: Tensor
    edge_index: Tensor | Edges
    source: Tensor
    target: Tensor
    vectors: Tensor
    structure: Tensor
    num_structures: int
    cell: Tensor | None
    head: Tensor | None = None
    functions: tuple[Tensor, Tensor] | None = None
    slopes: Tensor | None = None
    rows: tuple[Species, Species | None] | None = None

    @property
    def head_of_atom(self) -> Tensor:
        """(n,) int64, of a potential with heads."""
        assert self.head is not None
        return self.head[self.structure]


def read_atoms(data: Data, species_of_number: Tensor, dtype: torch.dtype) -> Atoms:
    r"""The atoms of a :class:`~torch_geometric.data.Data` or Batch, with edge vectors

    .. math:: \mathbf{r}_{ij} = \mathbf{r}_j + \mathbf{S}_{ij} \mathbf{h} - \mathbf{r}_i

    subtracted in the precision of the positions.

    Raises:
        ValueError: an attribute is missing or has a wrong shape or dtype.
    """
    z, pos, edge_index = (_given(data, name) for name in ("z", "pos", "edge_index"))
    structure, shift, cell = (_optional(data, name) for name in ("batch", "edge_shift", "cell"))
    _check_positions(pos, dtype)
    n = len(pos)
    if z.shape != (n,) or z.is_floating_point() or z.dtype == torch.bool:
        raise ValueError(f"data.z: expected atomic numbers ({n},) as integers, got {z.dtype} of shape {tuple(z.shape)}")
    is_sparse = edge_index.layout != torch.strided
    if is_sparse or edge_index.dim() != 2 or len(edge_index) != 2 or edge_index.is_floating_point():
        form = f"{edge_index.layout} {edge_index.dtype}" if is_sparse else edge_index.dtype
        raise ValueError(
            f"data.edge_index: expected integers (2, E), got {form} {tuple(edge_index.shape)}; make the edges with "
            "pyg_cgconv.RadiusGraph"
        )
    if structure is None:
        structure, num_structures = torch.zeros(n, dtype=torch.int64, device=pos.device), 1
    else:
        num_structures = _num_structures(data, structure)
        _check_range("data.batch", untransformed("data.batch", structure), num_structures, "structures")

    # Rows of an EdgeIndex are tensors of a class of their own, on which each operation takes a detour through Python.
    plain = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
    plain = untransformed("data.edge_index", plain).long()
    _check_range("data.edge_index", plain, n, "atoms")
    source, target = plain.unbind(0)
    vectors = pos[source] - pos[target]
    if cell is not None:
        cell = cell.reshape(-1, 3, 3).to(pos.dtype)
        if len(cell) != num_structures:
            raise ValueError(
                f"data.cell: expected ({num_structures}, 3, 3), a cell a structure, got {tuple(cell.shape)}"
            )
    if shift is not None:
        if cell is None or shift.shape != vectors.shape:
            raise ValueError(
                f"data.edge_shift: expected ({len(vectors)}, 3), and data.cell beside it, got {tuple(shift.shape)} and "
                f"{'no cell' if cell is None else 'a cell'}"
            )
        vectors = vectors + torch.einsum("es,esx->ex", shift.to(pos.dtype), cell[structure[target]])
    elif cell is not None:
        raise ValueError("data.edge_shift: missing, but data.cell is there; make the edges with pyg_cgconv.RadiusGraph")

    species = species_of_number[z.long().clamp(0, len(species_of_number) - 1)]
    return Atoms(species, edge_index, source, target, vectors.to(dtype), structure, num_structures, cell)


def check_values(
    data: Data,
    atoms: Atoms,
    atomic_numbers: Tensor,
    cutoff: float,
    heads: Sequence[str] | None = None,
    reads_charge: bool = False,
) -> None:
    """Checks that have to look at numbers: on a GPU they wait for it, once.

    Raises:
        ValueError: an atom's species or a structure's head is unknown, an edge joins two structures, the neighbour list
            is shorter than the cutoff, or a total charge that is read is not finite.
    """
    known = getattr(data, "edge_cutoff", None)
    too_short = atoms.species.new_zeros(()) if known is None else (known < cutoff * (1 - 1e-6)).any()
    apart = atoms.structure[atoms.source] != atoms.structure[atoms.target]
    head = atoms.structure.new_zeros(1) if atoms.head is None else atoms.head
    no_head = (head < 0) | (head >= len(heads or "0"))
    charge = _optional(data, "charge") if reads_charge else None
    no_charge = atoms.structure.new_zeros(1) if charge is None else ~charge.isfinite()
    wrong = torch.stack([(atoms.species < 0).any(), apart.any(), too_short.bool(), no_head.any(), no_charge.any()])
    unknown, joined, too_short, headless, uncharged = wrong.tolist()
    if uncharged and charge is not None:
        raise ValueError(
            f"data.charge: expected finite numbers, the total charge of each structure in e, got {charge.tolist()}"
        )
    if headless and heads:
        raise ValueError(
            f"data.head: expected numbers from 0 to {len(heads) - 1}, of the heads {list(heads)}, got "
            f"{head.unique().tolist()}"
        )
    if unknown:
        numbers = sorted(set(data.z[atoms.species < 0].tolist()))
        raise ValueError(f"data.z: no species of this potential: {numbers}; it was made for {atomic_numbers.tolist()}")
    if joined:
        edge = int(apart.nonzero()[0])
        first, second = (int(atoms.structure[end[edge]]) for end in (atoms.source, atoms.target))
        raise ValueError(
            f"data.edge_index: edge {edge} joins structures {first} and {second} of the batch; make the edges of each "
            "structure by itself, before they are put together"
        )
    if known is not None and too_short:
        raise ValueError(
            f"data.edge_index: made with cutoff {known.min().item():g}, the potential needs {cutoff:g} Angstrom; "
            f"use RadiusGraph({cutoff:g})"
        )


def edge_lengths(vectors: Tensor) -> Tensor:
    """Lengths (E,) of edge vectors (E, 3), with finite derivatives everywhere."""
    return vectors.square().sum(-1).clamp(min=MIN_LENGTH_SQUARED).sqrt()


def _given(data: Data, name: str) -> Tensor:
    value = _optional(data, name)
    if value is None:
        remedy = "; make the edges with pyg_cgconv.RadiusGraph(cutoff)" if name == "edge_index" else ""
        raise ValueError(f"data.{name}: missing{remedy}")
    return value


def _optional(data: Data, name: str) -> Tensor | None:
    value = getattr(data, name, None)
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise ValueError(f"data.{name}: expected a tensor, got {type(value).__name__}")
    if torch.compiler.is_compiling() or not value.is_inference():
        return value
    return value.clone()  # autograd refuses tensors made in inference mode


def _check_positions(pos: Tensor, dtype: torch.dtype) -> None:
    if pos.dim() != 2 or pos.shape[1] != 3:
        raise ValueError(f"data.pos: expected shape (n, 3), got {tuple(pos.shape)}")
    if pos.dtype not in (dtype, torch.float64):
        raise ValueError(
            f"data.pos: dtype {pos.dtype} is less exact than the potential's {dtype}; convert the positions or it"
        )


def _check_range(name: str, indices: Tensor, count: int, what: str) -> None:
    """On a GPU it is skipped, unless PYG_CGCONV_CHECK says otherwise: it would wait."""
    if not checks_on_host(indices) or not indices.numel():
        return
    with without_transforms():
        least, most = (int(end) for end in indices.aminmax())
    if least < 0 or most >= count:
        raise ValueError(f"{name}: expected numbers of {count} {what}, 0 to {count - 1}, got {least} to {most}")


def _num_structures(data: Data, structure: Tensor) -> int:
    if structure.shape != data.z.shape:
        raise ValueError(f"data.batch: expected shape {tuple(data.z.shape)}, got {tuple(structure.shape)}")
    ptr = getattr(data, "ptr", None)
    if ptr is not None:
        return len(ptr) - 1
    return int(structure.max()) + 1 if len(structure) else 0
