"""Structures as ase.Atoms: what ASE writes, shows and computes with."""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets.qm9_targets import TARGETS

if TYPE_CHECKING:
    from ase import Atoms

LABELS = ("energy", "forces", "stress")
STRUCTURE = ("z", "pos", "cell", "pbc")
TARGETS_OF_QM9 = "y"
TEXT = ("config_type", "head_name")  # a batch holds text as bytes


def to_ase(data: Data) -> Atoms:
    """A structure as :class:`ase.Atoms`, with its labels in a
    :class:`~ase.calculators.singlepoint.SinglePointCalculator`: ``ase.io.write`` keeps them, ``get_forces`` gives them.

    Numbers are float64. What is missing or all NaN is left out: the calculator says that it has no such label. The
    twelve properties of a molecule of QM9 are in ``info`` by their names, in the units of
    :data:`datasets.qm9_targets.TARGETS`. Other attributes go to ``arrays`` if they have a row for each of several
    atoms, else to ``info``. Edges, attributes whose names begin with "edge", are left out: they follow from the
    positions.

    Args:
        data: One structure: ``z`` (n,), ``pos`` (n, 3) in Angstrom, and as far as there are ``cell`` (1, 3, 3) in
            Angstrom, ``pbc`` (1, 3), by default True where there is a cell, ``energy`` (1,) in eV, ``forces`` (n, 3) in
            eV/Angstrom, ``stress`` (1, 3, 3) in eV/Angstrom^3, which ASE keeps as (6,) in Voigt's order with the same
            sign.

    Returns:
        The atoms. ``calc`` is None where there is no label.

    Raises:
        ImportError: ASE is not installed.
        TypeError: it is no :class:`~torch_geometric.data.Data` of one structure.
        ValueError: ``z`` or ``pos`` is missing, or an attribute has another shape.
    """
    Atoms = import_ase("to_ase").Atoms
    _check(data)
    atoms = Atoms(numbers=_array(data.z), positions=_array(data.pos))
    if data.get("cell") is not None:
        atoms.cell = _array(data.cell).reshape(3, 3)
        atoms.pbc = True if data.get("pbc") is None else _array(data.pbc).reshape(-1)
    atoms.calc = _calculator(atoms, data)
    for name, value in data.to_dict().items():
        if name == TARGETS_OF_QM9 and torch.is_tensor(value) and value.shape == (1, len(TARGETS)):
            atoms.info.update(zip(TARGETS, value[0].tolist(), strict=True))
        elif name not in (*LABELS, *STRUCTURE) and not name.startswith("edge"):
            _attach(atoms, name, value)
    return atoms


def import_ase(wanted_by: str) -> ModuleType:
    """The package ``ase``. Raises ImportError, in the name of ``wanted_by``, where it is not installed."""
    try:
        import ase.data
    except ImportError as error:
        raise ImportError(f"{wanted_by} needs ASE, which cannot be imported ({error}): pip install ase") from error
    return ase


def _check(data: Data) -> None:
    if not isinstance(data, Data):
        raise TypeError(
            f"data: expected one structure, a torch_geometric Data such as dataset[0], got {type(data).__name__}; all "
            "structures of a data set are given by dataset.to_ase()"
        )
    if isinstance(data, Batch):
        raise TypeError(
            f"data: expected one structure, got a batch of {data.num_graphs}; write "
            "[to_ase(structure) for structure in batch.to_data_list()]"
        )
    missing = [name for name in ("z", "pos") if data.get(name) is None]
    if missing:
        raise ValueError(f"data: expected atomic numbers `z` (n,) and positions `pos` (n, 3), got no {missing}")
    for name, shape in {"cell": (1, 3, 3), "stress": (1, 3, 3), "energy": (1,), "forces": data.pos.shape}.items():
        given = data.get(name)
        if given is not None and given.numel() != math.prod(shape):
            raise ValueError(f"data.{name}: expected shape {tuple(shape)}, got {tuple(given.shape)}")


def _calculator(atoms: Atoms, data: Data):
    """The labels that there are, or None."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    found = {name: _array(data[name]) for name in LABELS if data.get(name) is not None}
    results = {name: value for name, value in found.items() if not np.isnan(value).all()}
    if "energy" in results:
        results["energy"] = results["energy"].item()
    if "stress" in results:
        results["stress"] = full_3x3_to_voigt_6_stress(results["stress"].reshape(3, 3))
    return SinglePointCalculator(atoms, **results) if results else None


def _attach(atoms: Atoms, name: str, value) -> None:
    """Anything but structure and labels. Of a single atom, a row is one of the structure."""
    if not torch.is_tensor(value):
        atoms.info[name] = value
    elif value.is_floating_point() and value.isnan().all():
        return
    elif name in TEXT and value.dtype == torch.uint8:
        atoms.info[name] = bytes(value.tolist()).decode()
    elif value.dim() and len(value) == len(atoms) > 1:
        atoms.arrays[name] = _array(value)
    elif value.numel() == 1:
        atoms.info[name] = value.item()
    else:
        atoms.info[name] = _array(value)[0] if len(value) == 1 else _array(value)


def _array(value: Tensor) -> np.ndarray:
    """In float64 if it is of floating-point numbers: the calculator's results have one precision."""
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy().copy()
