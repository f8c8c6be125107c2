"""The repulsion of nuclei, against its formula written down by itself, published values and finite differences."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph

pytest.importorskip("ase")
from ase.data import covalent_radii
from ase.units import Bohr, Hartree

CUTOFF = 4.0
SPECIES = [8, 1, 29, 79]


def make(zbl=True, **options) -> Potential:
    torch.manual_seed(0)
    size = dict(channels=2, lmax=1, layers=1, radial_hidden=(4,), dtype="float64")
    return Potential(SPECIES, CUTOFF, zbl=zbl, **{**size, **options}).eval()


@pytest.fixture(scope="module")
def bare() -> Potential:
    """What is learned is nothing: all is repulsion."""
    potential = make(shift=-3.0)
    with torch.no_grad():
        for parameter in potential.readout.parameters():
            parameter.zero_()
    return potential


def pair(first: int, second: int, distance: float) -> Data:
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.6 * distance, 0.0, 0.8 * distance]], dtype=torch.float64)
    return RadiusGraph(CUTOFF)(Data(z=torch.tensor([first, second]), pos=pos))


def repulsion(first: int, second: int, distance: float) -> float:
    """eV; without its end, in atomic units and with the coefficients of the book, which have four digits."""
    length = 0.8854 / (first**0.23 + second**0.23)
    x = distance / Bohr / length
    screening = (
        0.1818 * np.exp(-3.2 * x)
        + 0.5099 * np.exp(-0.9423 * x)
        + 0.2802 * np.exp(-0.4028 * x)
        + 0.02817 * np.exp(-0.2016 * x)
    )
    return Hartree * first * second / (distance / Bohr) * screening


def envelope(first: int, second: int, distance: float) -> float:
    d = min(distance / min(covalent_radii[first] + covalent_radii[second], CUTOFF), 1.0)
    return 1 - 28 * d**6 + 48 * d**7 - 21 * d**8


@pytest.mark.parametrize(("first", "second"), [(8, 8), (1, 8), (29, 79), (1, 1)])
@pytest.mark.parametrize("distance", [0.05, 0.3, 0.6, 0.9, 1.3, 2.6])
def test_a_pair_has_the_energy_of_the_formula(bare, first, second, distance):
    energy = bare(pair(first, second, distance))["energy"].item() + 6.0
    expected = repulsion(first, second, distance) * envelope(first, second, distance)
    assert energy == pytest.approx(expected, rel=2e-3, abs=1e-9)


def test_nuclei_that_nearly_meet_are_not_screened(bare):
    """Coulomb's law."""
    for first, second in ((8, 1), (79, 79)):
        energy = bare(pair(first, second, 1e-5))["energy"].item()
        assert energy == pytest.approx(Hartree * Bohr * first * second / 1e-5, rel=1e-3)


def test_dimers_repel_at_short_distances():
    """Whatever is learned."""
    potential = make(scale=3.0)
    for first, second in ((8, 8), (1, 8), (29, 79)):
        data = pair(first, second, 0.3)
        force = potential(data)["forces"][1] @ (data.pos[1] / 0.3)
        assert force.item() > 30
        energies = [potential(pair(first, second, distance))["energy"].item() for distance in (0.1, 0.2, 0.3, 0.5)]
        assert energies == sorted(energies, reverse=True)


def cluster(seed: int = 0) -> Data:
    random = torch.Generator().manual_seed(seed)
    pos = torch.rand(6, 3, generator=random, dtype=torch.float64) * 2.0
    data = Data(z=torch.tensor([8, 1, 29, 79, 1, 8]), pos=pos)
    data.cell = 4.2 * torch.eye(3, dtype=torch.float64)[None]
    data.pbc = torch.ones(1, 3, dtype=torch.bool)
    return RadiusGraph(CUTOFF)(data)


def test_derivatives(bare):
    """Forces, stress and Hessian, of which the repulsion is nearly all."""
    data = cluster()

    def at(pos: torch.Tensor, strain: torch.Tensor | None = None) -> dict:
        moved = data.clone()
        strain = torch.zeros(3, 3, dtype=torch.float64) if strain is None else strain
        moved.pos, moved.cell = pos + pos @ strain, data.cell + data.cell @ strain
        return bare(moved, compute_stress=True)

    out, step = at(data.pos), 1e-5
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        move = torch.randn(6, 3, generator=random, dtype=torch.float64)
        change = (at(data.pos + step * move)["energy"] - at(data.pos - step * move)["energy"]) / (2 * step)
        torch.testing.assert_close(-(out["forces"] * move).sum(), change[0], rtol=1e-6, atol=1e-4)
        strain = torch.randn(3, 3, generator=random, dtype=torch.float64)
        strain = strain + strain.T
        change = (at(data.pos, step * strain)["energy"] - at(data.pos, -step * strain)["energy"]) / (2 * step)
        torch.testing.assert_close((out["stress"][0] * strain).sum() * 4.2**3, change[0], rtol=1e-6, atol=1e-4)


def test_second_derivatives(bare):
    def energy(pos: torch.Tensor) -> torch.Tensor:
        data = pair(8, 8, 0.5)
        data.pos = pos
        return bare(data, compute_forces=False)["energy"]

    assert torch.autograd.gradgradcheck(energy, pair(8, 8, 0.5).pos.requires_grad_())


def test_it_ends_smoothly(bare):
    """At the sum of covalent radii value, slope and curvature vanish; beyond there is nothing."""
    end = 2 * covalent_radii[8]
    for off in (1e-3, 1e-4):
        near = bare(pair(8, 8, end - off))
        assert near["energy"].item() + 6.0 < 1e5 * off**3
        assert near["forces"].abs().max() < 3e5 * off**2
    beyond = bare(pair(8, 8, end + 1e-9))
    assert beyond["energy"].item() == -6.0
    assert beyond["forces"].abs().max() == 0


def test_energies_of_atoms_and_batches(bare):
    batch = Batch.from_data_list([pair(8, 1, 0.4), pair(29, 29, 1.0)])
    out = bare(batch, compute_energies=True)
    for number, data in enumerate((pair(8, 1, 0.4), pair(29, 29, 1.0))):
        torch.testing.assert_close(out["energy"][number], bare(data)["energy"][0])
    torch.testing.assert_close(out["energies"][0], out["energies"][1])  # half of a pair's is either atom's


def test_an_isolated_atom_has_its_shift(bare):
    alone = RadiusGraph(CUTOFF)(Data(z=torch.tensor([79]), pos=torch.zeros(1, 3, dtype=torch.float64)))
    assert bare(alone)["energy"].item() == -3.0


def test_float32_is_as_exact_as_float32_is(bare):
    for first, second, distance in ((8, 8, 0.3), (29, 79, 0.05), (1, 8, 0.9)):
        expected = bare(pair(first, second, distance))["energy"].item()
        single = make(dtype="float32", shift=-3.0)
        single.load_state_dict(bare.state_dict())
        assert single(pair(first, second, distance))["energy"].item() == pytest.approx(expected, rel=1e-5)


def test_atoms_that_coincide_have_finite_derivatives(bare):
    out = bare(pair(8, 8, 0.0))
    assert all(value.isfinite().all() for value in out.values())


def test_a_file_keeps_it_and_mistakes_are_named(bare, tmp_path):
    bare.save(tmp_path / "zbl.pt")
    loaded = Potential.load(tmp_path / "zbl.pt")
    assert torch.equal(loaded(cluster())["energy"], bare(cluster())["energy"])
    with pytest.raises(ValueError, match=r"zbl: expected elements up to curium \(96\).*got \[98\]"):
        Potential(["Cf", "H"], zbl=True)
    with pytest.raises(ValueError, match="zbl: a part of the energy, which a model of '1x0e"):
        Potential(["H"], zbl=True, readout_irreps="0e + 1o")
