"""Forces, virial and volume from the slope of the energy along each edge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from .._torch import in_forward_mode, is_plain, is_transformed
from ..cuda_graphs import aside
from ._atoms import Atoms
from ._edge_functions import EdgeFunctions


def with_derivatives(
    results: Callable[[Atoms], dict[str, Tensor]],
    functions: EdgeFunctions | None,
    atoms: Atoms,
    create_graph: bool,
    compute_forces: bool,
    compute_stress: bool,
    compute_stresses: bool,
) -> dict[str, Tensor]:
    """``results(atoms)``, which have an energy, with those of its derivatives that are asked for.

    ``functions(vectors)`` are ``atoms.functions``; without them the energy is differentiated by the edge vectors.

    Raises:
        ValueError: stresses are asked for, and there is no volume.
    """
    if compute_stress or compute_stresses:
        cell_volume = volume(atoms.cell)
    out, gradient = with_slope(results, functions, atoms, create_graph)
    if compute_forces:
        out["forces"] = forces(gradient, atoms)
    if compute_stress:
        out["stress"] = virial(gradient, atoms) / cell_volume.to(gradient.dtype)
    if compute_stresses:
        out["stresses"] = atomic_virials(gradient, atoms) / cell_volume.to(gradient.dtype)[atoms.structure]
    return out


def with_slope(
    energies: Callable[[Atoms], dict[str, Tensor]], functions: EdgeFunctions | None, atoms: Atoms, create_graph: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """What ``energies(atoms)`` gives, and dE/dr_ij (E, 3): forces and stress are sums of it."""
    if is_transformed():  # torch.func has its own record, and forbids to begin another
        return _transformed_slope(energies, atoms)
    vectors = atoms.vectors
    if functions is not None and create_graph and _serve_functions(vectors):
        return _slope_by_functions(energies, functions, atoms)
    atoms = replace(atoms, functions=None)  # made again, of vectors by which they are differentiated
    if not vectors.requires_grad:
        vectors.requires_grad_()
    out = energies(atoms)
    if not len(vectors):
        return out, torch.zeros_like(vectors)
    return out, torch.autograd.grad(out["energy"].sum(), vectors, create_graph=create_graph)[0]


def _serve_functions(vectors: Tensor) -> bool:
    """Whether nobody can differentiate by the vectors, so that :func:`_slope_by_functions` serves."""
    return not vectors.requires_grad and len(vectors) > 0 and is_plain(vectors) and not in_forward_mode()


def _slope_by_functions(
    energies: Callable[[Atoms], dict[str, Tensor]], functions: EdgeFunctions, atoms: Atoms
) -> tuple[dict[str, Tensor], Tensor]:
    r"""The same with a graph, by the chain rule,

    .. math:: \frac{dE}{d\mathbf{r}} = \sum_k \frac{dE}{d\phi_k} \frac{d\phi_k}{d\mathbf{r}}

    with the slopes of the functions :math:`\phi_k` as numbers: no weight changes them, so that a training step, which
    differentiates forces by weights, does not differentiate the functions twice. Nor can anyone differentiate the
    forces by these vectors, which therefore must not ask for gradients.
    """
    vectors, slopes = atoms.vectors.detach(), atoms.slopes
    made = aside(functions.slopes, vectors) if slopes is None else lambda: slopes
    known = functions(vectors) if atoms.functions is None else atoms.functions
    leaves = [value.detach().requires_grad_() for value in (*known, vectors)]
    sh, radial, vectors = leaves
    out = energies(replace(atoms, vectors=vectors, functions=(sh, radial)))
    found = torch.autograd.grad(out["energy"].sum(), leaves, create_graph=True, allow_unused=True)
    by_sh, by_radial, by_vectors = found  # the last of a repulsion
    by_functions = torch.cat([by_sh, by_radial], dim=1)
    gradient = (by_functions[:, None] @ made())[:, 0]
    return out, gradient if by_vectors is None else gradient + by_vectors


def _transformed_slope(
    energies: Callable[[Atoms], dict[str, Tensor]], atoms: Atoms
) -> tuple[dict[str, Tensor], Tensor]:
    def total(vectors: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        out = energies(replace(atoms, vectors=vectors, functions=None))
        return out["energy"].sum(), out

    gradient, out = torch.func.grad(total, has_aux=True)(atoms.vectors)
    return out, gradient


def forces(slope: Tensor, atoms: Atoms) -> Tensor:
    """-dE/dr_k (n, 3): r_ij grows with the source j and shrinks with the target i."""
    n = len(atoms.species)
    return scatter(slope, atoms.target, dim_size=n) - scatter(slope, atoms.source, dim_size=n)


def virial(slope: Tensor, atoms: Atoms) -> Tensor:
    """dE/d(strain) (B, 3, 3): a strain takes every r_ij to r_ij (1 + strain)."""
    structure = atoms.structure[atoms.target]
    outer = scatter(atoms.vectors[:, :, None] * slope[:, None, :], structure, dim_size=atoms.num_structures)
    return (outer + outer.mT) / 2


def atomic_virials(slope: Tensor, atoms: Atoms) -> Tensor:
    """Parts (n, 3, 3) of the virial: half of that of each edge is its source's, half its target's."""
    halves = atoms.vectors[:, :, None] * slope[:, None, :] / 2
    halves = (halves + halves.mT) / 2
    n = len(atoms.species)
    return scatter(halves, atoms.target, dim_size=n) + scatter(halves, atoms.source, dim_size=n)


def cell_volumes(cell: Tensor) -> Tensor:
    """Volumes (B,) spanned by lattice vectors (B, 3, 3).

    The triple product needs no library that may wait for the GPU, as a determinant does: a CUDA graph can hold it.
    """
    return (torch.linalg.cross(cell[:, 0], cell[:, 1]) * cell[:, 2]).sum(-1).abs()


def volume(cell: Tensor | None) -> Tensor:
    """Volumes (B, 1, 1)."""
    if cell is None:
        raise ValueError("data.cell: missing; the stress needs lattice vectors (B, 3, 3)")
    volume = cell_volumes(cell)
    if not cell.is_cuda and is_plain(cell) and not volume.all():
        raise ValueError(f"data.cell: the stress needs a volume, structure {int(volume.argmin())} has none")
    return volume[:, None, None]


def hessian(potential: Callable[..., dict[str, Tensor]], data: Data, chunk_size: int) -> Tensor:
    """Second derivatives (n, 3, n, 3) of the energy of one structure, ``chunk_size`` rows at a time."""
    structure = copy.copy(data)

    def forces_at(pos: Tensor) -> Tensor:
        structure.pos = pos
        return potential(structure)["forces"]

    if not data.num_nodes:
        return data.pos.new_zeros(0, 3, 0, 3)
    found = -torch.func.jacrev(forces_at, chunk_size=chunk_size)(data.pos)
    return (found + found.permute(2, 3, 0, 1)) / 2
