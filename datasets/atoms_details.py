"""What a file says of a frame beside structure and labels: how much it counts, of which kind it is, what is held fixed.

The names are those of MACE's files.
"""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.atoms_labels import LABELS

CONFIG_TYPE, DEFAULT_CONFIG_TYPE = "config_type", "Default"
HEAD, DEFAULT_HEAD = "head", "Default"
WEIGHT = "config_weight"
# Of each label; the first name that the frame has. A stress may come from a virial, and its weight with it.
LABEL_WEIGHTS = {
    "energy": ("config_energy_weight",),
    "forces": ("config_forces_weight",),
    "stress": ("config_stress_weight", "config_virials_weight"),
    "energies": ("config_energies_weight",),
    "charges": ("config_charges_weight",),
    "dipole": ("config_dipole_weight",),
}


def add_details(data: Data, atoms, place: str, file: int, number: int) -> None:
    """Adds to ``data``, in place, what :class:`datasets.AtomsFile` says of ``details``.

    Args:
        atoms: the ase.Atoms that ``data`` is made of.
        place: its place, with which every error message begins.
        file: the number of its file among all that are read.
        number: its number in this file.

    Raises:
        ValueError: a weight is no number of 0 or more.
    """
    weight = _weight(atoms, WEIGHT, place)
    of_labels = [_weight(atoms, _first_there(atoms, LABEL_WEIGHTS[name]), place) for name in LABELS]
    data.weight = torch.tensor([[weight * of_label for of_label in of_labels]], dtype=torch.float64)
    data.config_type = _as_bytes(str(atoms.info.get(CONFIG_TYPE, DEFAULT_CONFIG_TYPE)))
    data.head_name = _as_bytes(str(atoms.info.get(HEAD, DEFAULT_HEAD)))
    data.constrained = torch.tensor([bool(atoms.constraints)])
    data.source = torch.tensor([[file, number]])


def text_of(data: Data, name: str) -> str:
    """``config_type`` or ``head_name`` of an item of an :class:`datasets.AtomsFile` that was read with its
    ``details``."""
    return bytes(data[name].tolist()).decode()


def _first_there(atoms, names: tuple[str, ...]) -> str:
    return next((name for name in names if name in atoms.info), names[0])


def _weight(atoms, name: str, place: str) -> float:
    given = np.asarray(atoms.info.get(name, 1.0))
    if given.size != 1 or given.dtype.kind not in "iuf" or not np.isfinite(given).all() or given.min() < 0:
        raise ValueError(f"{place}: {name}={atoms.info[name]!r}, expected a number of 0 or more")
    return float(given.reshape(()))


def _as_bytes(text: str) -> Tensor:
    """A tensor, so that frames of any ``text`` can be collated, cached and sent from process to process as others."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
