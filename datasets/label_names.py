"""Names under which files hold labels: those that ASE knows, those that a user gives, and others that look alike."""

from typing import NoReturn

import numpy as np

UNITS = {
    "energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3", "energies": "eV", "charges": "e",
    "dipole": "e Angstrom",
}  # fmt: skip
OF_ATOMS = ("forces", "energies", "charges")  # labels with a row for each atom
# Part of every name of the label, whatever else is in it: REF_energy, DFT_Energy, dft_forces, virials.
STEMS = {
    "energy": "energy", "forces": "force", "stress": "stress", "virial": "virial", "energies": "energies",
    "charges": "charges", "dipole": "dipole",
}  # fmt: skip
# Parts of names of other quantities, such as kinetic_energy, energy_per_atom, config_energy_weight.
OTHER_QUANTITIES = (
    "adsorption", "atom", "band", "binding", "cohesive", "correction", "cutoff", "d3", "dispersion", "error",
    "external", "fermi", "formation", "free", "hull", "initial", "interaction", "ionization", "kinetic", "mask",
    "shift", "solvation", "std", "uncertainty", "unit", "var", "vdw", "weight", "zero_point", "zpe",
)  # fmt: skip
# Labels that differ by less are one label of which some digits were cut off, eV and eV/Angstrom.
ROUNDING = 1e-3


def results_of(atoms) -> dict:
    # Not get_forces(), which would set the forces on fixed atoms to zero.
    return {} if atoms.calc is None else atoms.calc.results


def value_of(atoms, name: str, key: str | None):
    """What the frame holds under ``key``, or else the calculator's result ``name``; None if there is none."""
    if key is None:
        return results_of(atoms).get(name)
    return next((held[key] for held in (atoms.info, atoms.arrays, results_of(atoms)) if key in held), None)


def shapes_of(name: str, num_atoms: int) -> list[tuple[int, ...]]:
    """Those that a label may have."""
    known: dict[str, list[tuple[int, ...]]] = {
        "energy": [(), (1,)],
        "forces": [(num_atoms, 3)],
        "energies": [(num_atoms,)],
        "charges": [(num_atoms,)],
        "dipole": [(3,)],
    }
    return known.get(name, [(6,), (9,), (3, 3)])


def item_shape(name: str, num_atoms: int) -> tuple[int, ...]:
    """That of a label of an item of a data set, which begins with a row for each atom, or with one."""
    first = {"stress": (1, 3, 3), "dipole": (1, 3), "energy": (1,)}
    return first[name] if name in first else shapes_of(name, num_atoms)[0]


def numbers_of(value, name: str, num_atoms: int, place: str) -> np.ndarray:
    """``value`` in float64.

    Raises:
        ValueError: it is not finite, not made of numbers or of another shape than ``name`` has.
    """
    shapes, given = shapes_of(name, num_atoms), np.asarray(value)
    if given.shape not in shapes or given.dtype.kind not in "iuf":
        raise ValueError(
            f"{place}: {name} of {given.dtype} and shape {given.shape}, expected numbers of shape "
            f"{' or '.join(map(str, shapes))}"
        )
    if not np.isfinite(given).all():
        raise ValueError(f"{place}: {name} not finite")
    return given.astype(np.float64)


def names_like(atoms, name: str) -> list[str]:
    """Names in the frame, besides ASE's own, under which there may be another ``name``, such as REF_energy."""
    held = atoms.info | atoms.arrays if name in OF_ATOMS else atoms.info
    return sorted(key for key in held if sounds_like(str(key), STEMS[name]) and _may_be(held[key], name, len(atoms)))


def sounds_like(key: str, stem: str) -> bool:
    """Whether ``key`` is a name with ``stem`` in it, and not that of another quantity."""
    key = key.lower()
    return stem in key and not any(other in key for other in OTHER_QUANTITIES)


def _may_be(value, name: str, num_atoms: int) -> bool:
    try:
        numbers_of(value, name, num_atoms, "")
    except ValueError:
        return False
    return True


def refuse_rivals(atoms, name: str, value: np.ndarray, place: str) -> None:
    """Raises ValueError where the frame holds another ``name`` than the calculator's, ``value``."""
    for rival in names_like(atoms, name):
        other = numbers_of(value_of(atoms, name, rival), name, len(atoms), place)
        difference = np.abs(other.reshape(value.shape) - value).max()
        if difference > ROUNDING:
            refuse(place, name, (f"{name}_key",), name, rival, difference)


def by_keys(*keys: str) -> str:
    """What a user writes to name a label, in Python or on the command line."""
    named, options = (" or ".join(each) for each in ([f"`{key}`" for key in keys], [f"--{key}" for key in keys]))
    return f"{named} (on the command line {options})"


def to_leave_out(label: str) -> str:
    """What a user writes to do without a label. The command line learns forces and stresses with an energy only."""
    if label == "energy":
        return (
            "leave energy out of the `labels` of AtomsFile (on the command line that serves for charges and dipoles "
            "only: forces and stresses are learned as derivatives of an energy, which some frames must have)"
        )
    others = {"stress": "[energy,forces]", "forces": "[energy] or [energy,stress]"}.get(label)
    return f"leave {label} out of `labels`" + (f" (on the command line --labels {others})" if others else "")


def refuse(place: str, label: str, keys: tuple[str, ...], one: str, other: str, difference: float) -> NoReturn:
    """Raises ValueError for two labels, of the names ``one`` and ``other``, of which ``keys`` would choose one."""
    raise ValueError(
        f"{place} has two labels for the {label}, {one!r} and {other!r}, which differ by {difference:.4g} "
        f"{UNITS[label]}: name the one to be read, by {by_keys(*keys)}"
    )
