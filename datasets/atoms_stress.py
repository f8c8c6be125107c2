r"""The stress of a frame that ASE read, from its stress or from its virial.

.. math:: \tau = -\frac{W}{V}

with the stress :math:`\tau` in eV/Angstrom^3, of ASE's sign: positive where the structure wants to shrink; the virial
:math:`W` in eV; the volume :math:`V` of the cell in Angstrom^3.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from datasets.label_names import names_like, numbers_of, refuse, to_leave_out, value_of

# Under these a virial is read without being named, as a stress is under ASE's name.
VIRIALS = ("virial", "virials")
STRESS_KEYS = ("stress_key", "virial_key")
# Two components, or two stresses, that differ by less are the same: relative to the largest component, as of a file
# that prints four digits; but at least so much, in eV/Angstrom^3 (0.2 MPa), as of a relaxed structure without stress.
RELATIVE_ROUNDING, ROUNDING = 1e-3, 1e-6
FULL_STRESS = "stress of nine numbers"


def stress_of(atoms, keys: dict[str, str | None], place: str) -> np.ndarray | None:
    """The stress (1, 3, 3) in float64, eV/Angstrom^3; None if the frame has neither stress nor virial.

    Args:
        atoms: the ase.Atoms.
        keys: under ``"stress"`` and ``"virial"`` their names, or None; ASE's and :data:`VIRIALS` if both are.
        place: the frame's, with which every error message begins.

    Raises:
        ValueError: the stress or the virial cannot be, or the frame has two that disagree.
    """
    named = [(kind, key) for kind in ("stress", "virial") if (key := keys[kind]) is not None]
    if named:
        return _first_of_equals(atoms, named, place)
    own = [("stress", None), *(("virial", key) for key in VIRIALS if key in atoms.info)]
    found = _first_of_equals(atoms, own, place)
    if found is not None:
        _first_of_equals(atoms, [*own, *_others(atoms)], place)
    return found


def unread_names(atoms) -> list[str]:
    """Of a frame without a stress that is read by itself: what else sounds like one."""
    return [key for _, key in _others(atoms)]


def _others(atoms) -> list[tuple[str, str]]:
    """Kinds and names of what may be a stress besides what is read by itself."""
    return [(kind, key) for kind in ("stress", "virial") for key in names_like(atoms, kind) if key not in VIRIALS]


def _first_of_equals(atoms, candidates: Iterable[tuple[str, str | None]], place: str) -> np.ndarray | None:
    """The stress of the first of the ``candidates``, each a kind and a name, that the frame has."""
    found = list(_present(atoms, candidates, place))
    for name, stress in found[1:]:
        first_name, first = found[0]
        if not _same(first, stress):
            difference = np.abs(first - stress).max()
            refuse(place, "stress", STRESS_KEYS, first_name, name, difference)
    return found[0][1] if found else None


def _present(atoms, candidates: Iterable[tuple[str, str | None]], place: str) -> Iterator[tuple[str, np.ndarray]]:
    for kind, key in candidates:
        value = value_of(atoms, kind, key)
        if value is not None and not (kind == "virial" and len(atoms) == 1 and atoms.cell.volume == 0):
            yield key or kind, _stress(atoms, kind, key or kind, value, place)


def _stress(atoms, kind: str, name: str, value, place: str) -> np.ndarray:
    """(1, 3, 3), of a stress or of a virial."""
    given = _matrix(numbers_of(value, kind, len(atoms), place))
    if kind == "virial" and atoms.cell.volume == 0:
        raise ValueError(
            f"{place} has a virial {name!r}, but its cell {atoms.cell.array.tolist()} has no volume to divide it by: "
            f"give the cell, or {to_leave_out('stress')}"
        )
    stress = -given / atoms.cell.volume if kind == "virial" else given
    if not _same(stress, stress.T):
        raise ValueError(
            f"{place} has a {kind} that is not symmetric, {name!r}: {given.tolist()}; expected xy = yx, xz = zx and "
            f"yz = zy: correct it, or {to_leave_out('stress')}"
        )
    return (stress + stress.T)[None] / 2


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= max(RELATIVE_ROUNDING * np.abs(one).max(), ROUNDING))


def _matrix(given: np.ndarray) -> np.ndarray:
    """(3, 3), from Voigt's order if there are 6 components."""
    if given.shape == (6,):
        xx, yy, zz, yz, xz, xy = given
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return given.reshape(3, 3)


# === extended XYZ ===


def with_full_stress(properties: dict) -> dict:
    """The ``properties`` of a frame, with a stress of nine numbers once more, where ASE leaves it as it is.

    ASE itself keeps six of the numbers, and says nothing of the other three.
    """
    stress = np.asarray(properties.get("stress"))
    return properties | ({FULL_STRESS: stress} if stress.shape == (3, 3) else {})


def take_full_stress(atoms) -> None:
    """Gives the calculator of ``atoms`` all that :func:`with_full_stress` kept, in place."""
    stress = atoms.info.pop(FULL_STRESS, None)
    if stress is not None:
        atoms.calc.results["stress"] = stress
