"""Charges and dipoles: rotations, origins, sums, and the formula written down by itself."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_cgconv import Potential, RadiusGraph

CUTOFF = 4.0
SPECIES = [8, 1, 17]
MASSES = {8: 15.999, 1: 1.008, 17: 35.45}


def make(properties=("energy", "charges", "dipole"), **options) -> Potential:
    torch.manual_seed(0)
    size = dict(channels=4, lmax=1, layers=2, radial_hidden=(6,), dtype="float64", shift=-3.0)
    return Potential(SPECIES, CUTOFF, properties=properties, **{**size, **options}).eval()


@pytest.fixture(scope="module")
def potential() -> Potential:
    return make()


def molecule(seed: int = 0, charge: float | None = None, numbers=(8, 1, 1, 17, 8)) -> Data:
    random = torch.Generator().manual_seed(seed)
    pos = 1.5 * torch.randn(len(numbers), 3, generator=random, dtype=torch.float64)
    data = Data(z=torch.tensor(numbers), pos=pos)
    if charge is not None:
        data.charge = torch.tensor([charge])
    return RadiusGraph(CUTOFF)(data)


def random_rotation() -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    return rotation * torch.linalg.det(rotation).sign()


def moved(data: Data, pos: torch.Tensor) -> Data:
    data = data.clone()
    data.pos = pos
    return data


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("charge", [None, -2.0])
@pytest.mark.parametrize("parity", [1, -1])
def test_a_dipole_turns_with_its_molecule_and_charges_do_not(potential, charge, parity):
    data, rotation = molecule(charge=charge), parity * random_rotation()
    out, turned = potential(data), potential(moved(data, data.pos @ rotation.T))
    assert out["dipole"].abs().min() > 1e-3
    close(turned["dipole"], out["dipole"] @ rotation.T)
    close(turned["charges"], out["charges"])


@pytest.mark.parametrize("charge", [None, 1.0])
def test_neither_depends_on_the_origin(potential, charge):
    data = molecule(charge=charge)
    out, elsewhere = potential(data), potential(moved(data, data.pos + torch.tensor([3.0, -20.0, 100.0])))
    close(elsewhere["dipole"], out["dipole"])
    close(elsewhere["charges"], out["charges"])


def test_charges_sum_to_that_of_the_structure(potential):
    batch = Batch.from_data_list([molecule(seed, charge) for seed, charge in enumerate((0.0, -1.0, 2.0))])
    out = potential(batch)
    sums = [out["charges"][batch.batch == number].sum().item() for number in range(3)]
    assert sums == pytest.approx([0.0, -1.0, 2.0], abs=1e-12)
    for number, data in enumerate(batch.to_data_list()):
        alone = potential(data)
        close(out["dipole"][number], alone["dipole"][0])
        close(out["charges"][batch.batch == number], alone["charges"])
    assert potential(molecule())["charges"].sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("charge", [0.0, -1.0])
def test_the_formula(potential, charge):
    data = molecule(charge=charge)
    out, learned = potential(data), potential.atomic_outputs(data).detach().numpy()
    pos, mass = data.pos.numpy(), np.array([MASSES[z] for z in data.z.tolist()])
    charges = learned[:, 1] - learned[:, 1].mean() + charge / 5
    centre = (mass[:, None] * pos).sum(0) / mass.sum()
    dipole = sum(charges[i] * (pos[i] - centre) + learned[i, 2:] for i in range(5))
    np.testing.assert_allclose(out["charges"].detach(), charges, atol=1e-12)
    np.testing.assert_allclose(out["dipole"][0].detach(), dipole, atol=1e-12)


def test_energies_and_forces_are_those_of_a_potential(potential):
    """Forces are the slope of the energy, whatever comes with it."""
    data = molecule()
    out, step = potential(data), 1e-5
    random = torch.Generator().manual_seed(2)
    move = torch.randn(5, 3, generator=random, dtype=torch.float64)
    energies = [potential(moved(data, data.pos + sign * step * move))["energy"] for sign in (1, -1)]
    close(-(out["forces"] * move).sum(), ((energies[0] - energies[1]) / (2 * step))[0], atol=1e-7)


def test_derivatives_of_the_dipole(potential):
    """By positions, as infrared intensities need them."""
    data = molecule(charge=1.0)

    def dipole(pos: torch.Tensor) -> torch.Tensor:
        return potential(moved(data, pos), compute_forces=False)["dipole"][0]

    assert torch.autograd.gradcheck(dipole, data.pos.clone().requires_grad_(), atol=1e-6)
    # Of a move of all atoms: nothing, as the dipole is about the centre of mass.
    jacobian = torch.autograd.functional.jacobian(dipole, data.pos)
    close(jacobian.sum(1), torch.zeros(3, 3, dtype=torch.float64))


def test_periodic_structures_have_charges_and_no_dipole(potential):
    data = molecule()
    data.cell, data.pbc = 9.0 * torch.eye(3, dtype=torch.float64)[None], torch.tensor([[True, False, False]])
    boxed = data.clone()
    boxed.pbc = torch.zeros(1, 3, dtype=torch.bool)
    batch = Batch.from_data_list([RadiusGraph(CUTOFF)(each) for each in (data, boxed)])
    out = potential(batch)
    assert out["dipole"].isnan().tolist() == [[True] * 3, [False] * 3]
    close(out["dipole"][1], potential(molecule())["dipole"][0])
    assert not out["charges"].isnan().any()


@pytest.mark.parametrize("properties", [("dipole",), ("charges",), ("charges", "dipole"), ("energy", "charges")])
def test_properties_without_others(properties, tmp_path):
    potential = make(properties)
    out = potential(molecule())
    assert set(out) == set(properties) | ({"forces"} if "energy" in properties else set())
    potential.save(tmp_path / "moments.pt")
    assert torch.equal(Potential.load(tmp_path / "moments.pt")(molecule())[properties[-1]], out[properties[-1]])


def test_an_atom_alone_has_the_whole_charge(potential):
    data = molecule(charge=-1.0, numbers=(17,))
    out = potential(data)
    assert out["charges"].tolist() == [-1.0]
    assert out["dipole"].abs().max() < 1e-12


def test_each_head_has_charges_and_dipoles():
    potential = make(heads=("pbe", "r2scan"))
    data = molecule()
    first, second = (potential(data, head=head) for head in ("pbe", "r2scan"))
    assert (first["dipole"] - second["dipole"]).abs().max() > 1e-3
    close(potential.with_head("r2scan")(data)["dipole"], second["dipole"])


def test_losses_of_charges_and_dipoles_reach_all_weights():
    potential = make().train()
    out = potential(molecule(), compute_forces=False)
    (out["dipole"].square().sum() + out["charges"].square().sum()).backward()
    missing = [name for name, weight in potential.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert missing == []


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="properties: expected a list of some of"):
        make(("magmoms",))
    with pytest.raises(ValueError, match="properties: expected a list of some of"):
        make("dipole")
    with pytest.raises(ValueError, match=r"properties: a dipole is made of vectors.*lmax=0"):
        make(("dipole",), lmax=0)
    with pytest.raises(ValueError, match=r"properties: .*leave readout_irreps='1x1o' out"):
        make(("dipole",), readout_irreps="1o")
    with pytest.raises(ValueError, match=r"properties: this potential has no energy .* it gives \['dipole'\]"):
        make(("dipole",))(molecule(), compute_forces=True)
    data = molecule()
    data.charge = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"data.charge: expected the total charge of each structure \(1,\)"):
        make()(data)
    batch = Batch.from_data_list([molecule(0, 1.0), molecule(1, float("nan"))])
    with pytest.raises(ValueError, match=r"data.charge: expected finite numbers.* got \[1.0, nan\]"):
        make()(batch)


# ASE


def test_the_calculator_gives_them(potential):
    pytest.importorskip("ase")
    from ase import Atoms
    from ase.calculators.calculator import PropertyNotImplementedError

    from pyg_cgconv import ASECalculator, CommitteeCalculator

    data = molecule(charge=-1.0)
    atoms = Atoms(data.z.numpy(), data.pos.numpy())
    for calculator in (ASECalculator(potential), CommitteeCalculator([potential, potential])):
        atoms.calc = calculator
        for charge in (0.0, -1.0, 0.0):  # ASE itself does not see that it changes
            atoms.info["charge"] = charge
            expected = potential(molecule(charge=charge))
            np.testing.assert_allclose(atoms.get_dipole_moment(), expected["dipole"][0].detach(), atol=1e-9)
            np.testing.assert_allclose(atoms.get_charges(), expected["charges"].detach(), atol=1e-9)
            np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-9)
        crystal = atoms.copy()
        crystal.set_cell([9.0] * 3)
        crystal.pbc = True
        crystal.calc = calculator
        assert crystal.get_charges().shape == (5,)
        with pytest.raises(PropertyNotImplementedError, match="dipole: a periodic structure has none"):
            crystal.get_dipole_moment()


def test_calculators_of_potentials_that_lack_them_say_so():
    pytest.importorskip("ase")
    from ase import Atoms
    from ase.calculators.calculator import PropertyNotImplementedError

    from pyg_cgconv import ASECalculator
    from pyg_cgconv.potential import LAMMPSPotential

    atoms = Atoms("OH", [(0, 0, 0), (0, 0, 1.0)])
    atoms.calc = ASECalculator(make(("dipole",)))
    assert atoms.get_dipole_moment().shape == (3,)
    atoms.info["charge"] = float("nan")
    with pytest.raises(ValueError, match=r"atoms.info\['charge'\]: expected the total charge, a number in e, got nan"):
        atoms.get_dipole_moment()
    atoms.info.clear()
    for wanted in (atoms.get_potential_energy, atoms.get_forces, atoms.get_charges):
        with pytest.raises(PropertyNotImplementedError):
            wanted()
    atoms.calc = ASECalculator(make(("energy",)))
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    with pytest.raises(ValueError, match="properties: this potential has no energy"):
        LAMMPSPotential(make(("dipole",)))


def test_a_hessian_beside_them(potential):
    """The slope of the forces."""
    pytest.importorskip("ase")
    from ase import Atoms

    from pyg_cgconv import ASECalculator

    data = molecule()
    atoms = Atoms(data.z.numpy(), data.pos.numpy())
    found = ASECalculator(potential).get_hessian(atoms)
    step, force = 1e-4, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[2, 1] += sign * step
        moved.calc = ASECalculator(potential)
        force.append(moved.get_forces())
    np.testing.assert_allclose(found[2, 1], -(force[0] - force[1]) / (2 * step), atol=1e-5)
