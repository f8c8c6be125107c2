"""With torch-sim itself, against the ASE calculator."""

import numpy as np
import pytest
import torch

from pyg_cgconv import Potential

pytest.importorskip("torch_sim", reason="torch-sim-atomistic is not installed", exc_type=ImportError)
import torch_sim as ts
from ase import Atoms
from ase.build import bulk, molecule
from torch_sim.models.interface import validate_model_outputs

from pyg_cgconv import ASECalculator
from pyg_cgconv.potential import Replay, TorchSimModel
from tests.recorded import recorded_graphs

CUTOFF = 4.0


def make(**options):
    torch.manual_seed(1)
    size = dict(channels=2, lmax=1, layers=2, num_radial=3, radial_hidden=(4,), avg_num_neighbors=10.0)
    known = dict(shift=[-1.0, -10.0, -30.0, -40.0], scale=2.0, dtype="float64")
    return Potential(["H", "C", "Si", "Fe"], CUTOFF, **{**size, **known, **options})


@pytest.fixture(scope="module")
def potential():
    return make()


def crystals():
    """Three cells of different size and shape, smaller than the cutoff and larger."""
    every = [bulk("Si", "diamond", a=5.4), bulk("Fe", "fcc", a=3.6, cubic=True), bulk("Si", a=5.5).repeat((2, 1, 2))]
    for seed, atoms in enumerate(every):
        atoms.rattle(0.1, seed=seed)
    every[0].set_cell(every[0].cell.array + np.array([[0.0, 0.1, 0.2], [0.0, 0.0, 0.3], [0.1, 0.0, 0.0]]))
    return every


def state_of(structures, dtype=torch.float64):
    return ts.io.atoms_to_state(structures, torch.device("cpu"), dtype)


def by_ase(potential, structures, stress=True):
    """Energies (B,), forces (n, 3), and stresses (B, 3, 3)."""
    for atoms in structures:
        atoms.calc = ASECalculator(potential)
    found = {
        "energy": [atoms.get_potential_energy() for atoms in structures],
        "forces": np.concatenate([atoms.get_forces() for atoms in structures]),
    }
    if stress:
        found["stress"] = np.stack([atoms.get_stress(voigt=False) for atoms in structures])
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


def assert_agree(found, expected, relative=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = relative * value.abs().max().item()
        torch.testing.assert_close(found[name].double(), value, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")


def test_several_crystals_at_once(potential):
    expected = by_ase(potential, crystals())
    assert expected["forces"].abs().max() > 0.01
    assert_agree(TorchSimModel(potential)(state_of(crystals())), expected)


def test_float32(potential):
    found = TorchSimModel(potential, dtype="float32")(state_of(crystals(), torch.float32))
    assert {name: value.dtype for name, value in found.items()} == {
        "energy": torch.float64,
        "forces": torch.float32,
        "stress": torch.float32,
    }
    assert_agree(found, by_ase(potential, crystals()), 1e-4)


@pytest.mark.parametrize("vacuum", [None, 5.0], ids=["no cell", "a box"])
def test_molecules(potential, vacuum):
    molecules = [molecule(name, vacuum=vacuum) for name in ("CH4", "C2H6", "C6H6")]
    model = TorchSimModel(potential, compute_stress=vacuum is not None)
    assert_agree(model(state_of(molecules)), by_ase(potential, molecules, stress=vacuum is not None))


def test_what_is_not_asked_for_is_not_there(potential):
    model = TorchSimModel(potential, compute_forces=False, compute_stress=False)
    assert model(state_of(crystals())).keys() == {"energy"}
    model.compute_forces = True
    assert model(state_of(crystals())).keys() == {"energy", "forces"}


def test_a_dict_is_a_state(potential):
    state = state_of(crystals())
    names = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    found = TorchSimModel(potential)({name: getattr(state, name) for name in names})
    assert_agree(found, by_ase(potential, crystals()))


def test_its_own_validation(potential):
    model = TorchSimModel(potential, compute_forces=False, compute_stress=False)
    validate_model_outputs(model, torch.device("cpu"), torch.float64)
    assert model.compute_forces
    assert model.compute_stress


def test_only_structures_that_moved_get_new_lists(potential):
    model, structures = TorchSimModel(potential, skin=0.5), crystals()
    model(state_of(structures))
    assert model.neighbors.builds == 3
    for step, builds in ((0.1, 3), (0.2, 4), (0.0, 4)):  # from where the list was made: 0.1, 0.3, 0.0 Angstrom
        structures[1].positions[2] += [step, 0.0, 0.0]
        assert_agree(model(state_of(structures)), by_ase(potential, structures))
        assert model.neighbors.builds == builds


def test_atoms_put_back_into_their_cells_have_not_moved(potential):
    model, structures = TorchSimModel(potential), crystals()
    model(state_of(structures))
    for atoms in structures:
        atoms.positions += [[0.05, 0.0, 0.1]] - np.array([2, -1, 3]) @ atoms.cell.array
    structures[2].positions[1] += structures[2].cell.array[0]
    assert_agree(model(state_of(structures)), by_ase(potential, structures))
    assert model.neighbors.builds == 3


def test_another_cell_other_atoms_and_other_boundaries_make_new_lists(potential):
    model, structures = TorchSimModel(potential), crystals()
    model(state_of(structures))
    structures[0].set_cell(1.3 * structures[0].cell.array)
    assert_agree(model(state_of(structures)), by_ase(potential, structures))
    structures[1].numbers[0] = 14
    assert_agree(model(state_of(structures)), by_ase(potential, structures))
    assert_agree(model(state_of(structures[:2])), by_ase(potential, structures[:2]))
    for atoms in structures:
        atoms.pbc = False
    assert_agree(model(state_of(structures)), by_ase(potential, structures))


def test_dynamics_conserve_the_energy(potential):
    """By torch-sim's own integrator, which wraps positions."""
    model = TorchSimModel(potential, compute_stress=False)
    states = []
    initial = state_of([atoms.repeat(2) for atoms in crystals()[:2]])
    init, step = ts.integrators.nve(model, dt=torch.tensor(0.002), kT=torch.tensor(0.05))
    state = init(initial, seed=1)
    for _ in range(60):
        states.append(
            state.energy
            + ts.calc_kinetic_energy(momenta=state.momenta, masses=state.masses, system_idx=state.system_idx)
        )
        state = step(state, dt=torch.tensor(0.002))
    total = torch.stack(states)
    assert (total - total[0]).abs().max() < 2e-3
    assert model.neighbors.builds < 30


def check_captured(model, potential, device):
    structures, rng = crystals(), np.random.default_rng(0)
    for _ in range(3):
        for atoms in structures:
            atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
        found = model(state_of(structures).to(device))
        assert_agree({name: value.cpu() for name, value in found.items()}, by_ase(potential, structures), 1e-10)
    kept = {name: value.clone() for name, value in found.items()}
    structures[0].positions[0] += 0.1
    model(state_of(structures).to(device))
    assert all(torch.equal(found[name], value) for name, value in kept.items())  # the next call leaves them alone
    assert model._replay.captures == 1
    assert model._replay.replays == 4


def test_recorded_graphs_of_a_batch():
    potential = make(backend="reference")
    model = TorchSimModel(potential)
    with recorded_graphs():
        model._replay = Replay(model.potential)
        check_captured(model, potential, torch.device("cpu"))


@pytest.mark.cuda
def test_captured_batches(potential):
    check_captured(TorchSimModel(potential, device="cuda"), potential, torch.device("cuda"))
    assert TorchSimModel(potential, device="cuda", capture=False)._replay is None
    assert TorchSimModel(potential, device="cuda").to("cpu")._replay is None


def test_unknown_elements_and_missing_volumes_are_named(potential):
    with pytest.raises(ValueError, match=r"atomic_numbers: .*\[1, 6, 14, 26\] and does not know \[79\]"):
        TorchSimModel(potential)(state_of([bulk("Au")]))
    with pytest.raises(ValueError, match=r"cell: the stress needs a volume, structure 0"):
        TorchSimModel(potential)(state_of([molecule("CH4")]))
    with pytest.raises(ValueError, match=r"skin: expected .* got -1"):
        TorchSimModel(potential, skin=-1.0)
    with pytest.raises(ValueError, match=r"device: 'gpu' cannot be used"):
        TorchSimModel(potential, device="gpu")
    with pytest.raises(TypeError, match=r"potential: expected"):
        TorchSimModel(None)
    with pytest.raises(TypeError, match=r"\['charge'\]: no arguments"):
        TorchSimModel(potential)(state_of(crystals()), charge=1)


def test_positions_that_are_no_numbers_are_named(potential):
    model, structures = TorchSimModel(potential), crystals()
    model(state_of(structures))
    structures[1].positions[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"pos: atom 0 has a coordinate that is not finite"):
        model(state_of(structures))


def test_a_file_and_a_state_without_atoms_that_see_each_other(potential, tmp_path):
    potential.save(tmp_path / "potential.pt")
    model = TorchSimModel(tmp_path / "potential.pt", compute_stress=False)
    found = model(state_of([Atoms("H"), Atoms("C")]))
    assert_agree(found, {"energy": torch.tensor([-1.0, -10.0]).double(), "forces": torch.zeros(2, 3).double()})
