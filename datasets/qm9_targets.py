"""The properties in QM9, and the energies of its free atoms."""

from dataclasses import dataclass

from datasets.units import HARTREE


@dataclass(frozen=True)
class Target:
    """One property.

    Args:
        name: As in the literature and in ``torch_geometric.datasets.QM9``.
        unit: That of the values here.
        published_unit: In the published unit, one of ``unit``.
        decimals: Digits after the point in the published files.
        meaning: In words.
    """

    name: str
    unit: str
    published_unit: float
    decimals: int
    meaning: str


TARGETS = {
    target.name: target
    for target in (
        Target("mu", "D", 1.0, 4, "dipole moment"),
        Target("alpha", "a0^3", 1.0, 2, "isotropic polarizability"),
        Target("homo", "eV", HARTREE, 4, "energy of the highest occupied molecular orbital"),
        Target("lumo", "eV", HARTREE, 4, "energy of the lowest unoccupied molecular orbital"),
        Target("gap", "eV", HARTREE, 4, "difference of the two"),
        Target("r2", "a0^2", 1.0, 4, "electronic spatial extent"),
        Target("zpve", "eV", HARTREE, 6, "zero-point vibrational energy"),
        Target("U0", "eV", HARTREE, 6, "internal energy at 0 K"),
        Target("U", "eV", HARTREE, 6, "internal energy at 298.15 K"),
        Target("H", "eV", HARTREE, 6, "enthalpy at 298.15 K"),
        Target("G", "eV", HARTREE, 6, "free energy at 298.15 K"),
        Target("Cv", "cal/mol/K", 1.0, 3, "heat capacity at 298.15 K"),
    )
}

# Of the free atoms at the same level of theory, published beside the molecules (atomref.txt), in published units.
_FREE_ATOMS = {
    #            H          C           N           O           F
    "zpve": (0.0, 0.0, 0.0, 0.0, 0.0),
    "U0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "U": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "H": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "G": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
    "Cv": (2.981, 2.981, 2.981, 2.981, 2.981),
}
SPECIES = (1, 6, 7, 8, 9)


def checked_target(name: str) -> Target:
    """Raises ValueError if there is no target ``name``."""
    if name not in TARGETS:
        raise ValueError(f"target: QM9 has {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]


def atom_reference(name: str) -> dict[int, float]:
    """The property of each free atom, by atomic number, in the target's unit: what atomization energies start from.

    Raises:
        ValueError: there is no such target, or free atoms have none: ``mu``, ``alpha``, ``homo``, ``lumo``, ``gap`` and
            ``r2`` of a molecule are not sums over atoms.
    """
    target = checked_target(name)
    if name not in _FREE_ATOMS:
        raise ValueError(f"target: free atoms have a published {', '.join(_FREE_ATOMS)}, got {name!r}")
    return {z: value * target.published_unit for z, value in zip(SPECIES, _FREE_ATOMS[name], strict=True)}
