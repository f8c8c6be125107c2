"""Energy, forces, stress and other labels of a frame that ASE read: found by their names, checked, in one layout."""

import numpy as np

from datasets.atoms_stress import STRESS_KEYS, stress_of
from datasets.label_names import (
    by_keys,
    item_shape,
    names_like,
    numbers_of,
    refuse_rivals,
    results_of,
    sounds_like,
    to_leave_out,
    value_of,
)

USUAL_LABELS = ("energy", "forces", "stress")
LABELS = (*USUAL_LABELS, "energies", "charges", "dipole")
MOMENTS = ("charges", "dipole")
Found = dict[str, np.ndarray]
Missing = dict[str, str]


def checked_labels(labels, keys: dict[str, str | None]) -> tuple[str, ...] | None:
    """The labels that are read; None for energy and forces, with the stress if any frame has it.

    Args:
        labels: what a user asks for.
        keys: of each label and of the virial, the name in the files, or None.

    Raises:
        ValueError: a label is unknown, or a key is not that of a label which is read.
    """
    for name, other in (("stress", "virial"), ("virial", "stress")):
        key = keys[name]
        if key is not None and other in key.lower() and name not in key.lower():
            raise ValueError(
                f"{name}_key: {key!r} sounds like a {other}; expected a stress, in eV/Angstrom^3, as stress_key, or a "
                f"virial, in eV, as virial_key, which is divided by minus the volume: give it as {other}_key"
            )
    if labels is None:
        if more := [name for name in LABELS[len(USUAL_LABELS) :] if keys[name] is not None]:
            raise ValueError(f"{more[0]}_key: got {keys[more[0]]!r}, but labels does not name {more[0]}; name it there")
        return None if keys["stress"] is None and keys["virial"] is None else USUAL_LABELS
    if isinstance(labels, str) or not set(labels) <= set(LABELS):
        raise ValueError(f"labels: expected a list of some of {LABELS}, got {labels!r}")
    for name, key in keys.items():
        label = "stress" if name == "virial" else name
        if key is not None and label not in labels:
            raise ValueError(f"{name}_key: got {key!r}, but labels={labels!r} leaves the {label} out; name it there")
    return tuple(name for name in LABELS if name in labels)


def read_labels(
    atoms, labels: tuple[str, ...] | None, keys: dict[str, str | None], place: str
) -> tuple[Found, Missing]:
    """The labels of one frame: energy (1,), forces (n, 3), stress (1, 3, 3) and others, float64.

    The force on a single atom is zero by symmetry, so that its frame needs none.

    Args:
        atoms: the ase.Atoms.
        labels: as :func:`checked_labels` gives them.
        keys: likewise.
        place: the frame's, with which every error message begins.

    Returns:
        The labels by name; and of those that the frame lacks what to say if no other frame has them, either.

    Raises:
        ValueError: a label cannot be, is there twice with different values, or only under a name that sounds like it
            where no key tells which name is meant.
    """
    found, missing = {}, {}
    for name in USUAL_LABELS if labels is None else labels:
        value = stress_of(atoms, keys, place) if name == "stress" else _label(atoms, name, keys[name], place)
        if value is None and name == "forces" and len(atoms) == 1:
            value = np.zeros((1, 3))
        if value is not None:
            found[name] = value
        elif name != "stress" or labels is not None:
            missing[name] = f"{place} has no {_called(name, keys)}; {_what_there_is(atoms, name)}"
            if name != "stress" and keys[name] is None and names_like(atoms, name):
                raise ValueError(missing[name])
    return found, missing


def _label(atoms, name: str, key: str | None, place: str) -> np.ndarray | None:
    """Any but the stress, or None."""
    value = value_of(atoms, name, key)
    if value is None:
        return None
    value = numbers_of(value, name, len(atoms), place)
    if key is None:
        refuse_rivals(atoms, name, value, place)
    if name == "dipole" and atoms.pbc.any():
        raise ValueError(
            f"{place} has a dipole, but is periodic, pbc={atoms.pbc.tolist()}: it then depends on where the cell "
            'begins; leave it out of this frame, or write pbc="F F F"'
        )
    return value.reshape(item_shape(name, len(atoms)))


def charge_of(atoms, key: str, needed: bool, place: str) -> float | None:
    """The total charge of a frame, e; None if it names none.

    Args:
        needed: whether charges or dipoles are read, which have no meaning without it.

    Raises:
        ValueError: it is NaN or infinite; it is needed and no number, or there is one of another name only.
    """
    value = np.asarray(atoms.info.get(key))
    is_number = value.size == 1 and value.dtype.kind in "iuf"
    if is_number and np.isfinite(value).all():
        return float(value.reshape(()))
    if (needed or is_number) and key in atoms.info:
        raise ValueError(f"{place}: {key}={value.tolist()!r}, expected the total charge in e, a number")
    alike = [name for name, held in atoms.info.items() if sounds_like(str(name), "charge") and np.size(held) == 1]
    if needed and alike:
        raise ValueError(
            f"{place} has no {key}, the total charge in e, perhaps {' or '.join(map(repr, alike))}: name it by "
            "`charge_key` (on the command line --charge_key)"
        )
    return None


def _called(name: str, keys: dict[str, str | None]) -> str:
    """``name`` and what the user calls it."""
    key = keys[name] or (keys["virial"] if name == "stress" else None)
    return name if key is None else f"{name} {key!r}"


def _what_there_is(atoms, name: str) -> str:
    names = [*names_like(atoms, name), *(names_like(atoms, "virial") if name == "stress" else [])]
    likely = f", perhaps {' or '.join(map(repr, names))}," if names else ""
    keys = by_keys(*(STRESS_KEYS if name == "stress" else (f"{name}_key",)))
    return (
        f"there are calculator results {sorted(results_of(atoms))}, info {sorted(atoms.info)} and arrays "
        f"{sorted(atoms.arrays)}: give one{likely} as {keys}, or {to_leave_out(name)}"
    )
