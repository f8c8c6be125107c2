import pytest
from ase import units as ase_units

from datasets import units


def test_kcal_per_mol_is_ase_s():
    assert pytest.approx(ase_units.kcal / ase_units.mol, rel=1e-14) == units.KCAL_PER_MOL
