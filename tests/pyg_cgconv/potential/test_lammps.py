"""Against the potential itself, with a stand-in for LAMMPS' side of ML-IAP."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from pyg_cgconv import Potential, RadiusGraph
from pyg_cgconv.potential import LAMMPSPotential, write_lammps

pytest.importorskip("ase")
from ase import Atoms
from torch_geometric.data import Data

from tests.lammps_data import LAMMPSData, Processes

CUTOFF, SPECIES = 3.0, [8, 1, 6]


MANY = {"products": True, "radial_species": True, "zbl": True, "properties": ("energy", "dipole")}


def make(**options):
    torch.manual_seed(1)
    size = dict(channels=2, lmax=1, layers=3, num_radial=3, radial_hidden=(4,), avg_num_neighbors=4.0)
    known = dict(shift=[-20.0, -1.0, -10.0], scale=4.0, dtype="float64")
    return Potential(SPECIES, CUTOFF, **{**size, **known, **options}).eval()


def structure(isolated=False):
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(2.0), np.arange(2.0), indexing="ij"), -1).reshape(-1, 3)
    positions = 1.7 * grid + 0.3 * generator.random((24, 3))
    atoms = Atoms("HCOHCH" * 4, positions=positions, cell=[[10.2, 0, 0], [0.4, 3.4, 0], [0, 0.3, 3.4]], pbc=True)
    if isolated:
        atoms.set_cell([40.0, 3.4, 3.4])
        atoms.append("O")
        atoms.positions[-1] = (25.0, 0.0, 0.0)
        atoms.pbc = [True, False, False]
    return atoms


def expected(potential, atoms):
    data = Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    data.cell, data.pbc = torch.tensor(atoms.cell.array)[None], torch.tensor(atoms.pbc)[None]
    return potential(RadiusGraph(CUTOFF)(data), compute_energies=True, compute_stress=True)


@pytest.fixture(params=[{}, MANY, {"layers": 1}], ids=["plain", "all", "one"])
def potential(request):
    return make(**request.param)


def assert_close(found, expected, relative=1e-12):
    found = torch.as_tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * expected.abs().max().item())


def test_one_process(potential):
    whole, given = expected(potential, structure()), LAMMPSData(structure(), SPECIES, CUTOFF)
    LAMMPSPotential(potential).compute_forces(given)
    assert given.exchanges == len(potential.blocks) - 1
    assert whole["forces"].abs().max() > 0.1
    assert_close(given.forces, whole["forces"])
    assert_close(given.eatoms, whole["energies"])
    assert_close([given.energy], whole["energy"])


@pytest.mark.parametrize("isolated", [False, True], ids=["crystal", "one atom without neighbours"])
@pytest.mark.parametrize("count", [2, 3], ids=["two", "three, one without atoms"])
def test_several_processes(potential, count, isolated):
    """Each computes its own atoms; an atom far from all others is a process's only one but for those near a border."""
    atoms = structure(isolated)
    whole = expected(potential, atoms)
    processes = Processes(atoms, SPECIES, CUTOFF, (atoms.positions[:, 0] > 4.9).astype(int), count)
    processes.run(lambda data: LAMMPSPotential(potential).compute_forces(data))
    members = processes.members
    assert all(member.exchanges == 2 * (len(potential.blocks) - 1) for member in members)
    assert_close(sum(member.forces for member in members), whole["forces"])
    assert_close([sum(member.energy for member in members)], whole["energy"])
    for member in members:
        if member.nlocal:
            assert_close(member.eatoms, whole["energies"][member.owned])


def test_a_process_whose_atoms_have_no_neighbours_takes_part_in_each_exchange(potential):
    atoms = structure(isolated=True)
    processes = Processes(atoms, SPECIES, CUTOFF, (atoms.positions[:, 0] > 20).astype(int), 2)
    processes.run(lambda data: LAMMPSPotential(potential).compute_forces(data))
    crowd, alone = processes.members
    assert (alone.npairs, alone.nlocal) == (0, 1)
    assert alone.energy == -20.0
    assert crowd.exchanges == alone.exchanges == 2 * (len(potential.blocks) - 1)
    assert_close(crowd.forces, expected(potential, atoms)["forces"])


def test_pairs_make_the_virial():
    """LAMMPS sums r_ij times what it gets of each pair."""
    potential, atoms = make(), structure()
    pairs = []

    class Data(LAMMPSData):
        def update_pair_forces_gpu(self, given):
            pairs.append(given)

    given = Data(atoms, SPECIES, CUTOFF)
    LAMMPSPotential(potential).compute_forces(given)
    virial = torch.einsum("ea,eb->ab", torch.tensor(given.rij), pairs[0]) / atoms.get_volume()
    assert_close(virial, expected(potential, atoms)["stress"][0])


def test_float32_and_inference_mode():
    atoms = structure()
    given = LAMMPSData(atoms, SPECIES, CUTOFF)
    whole = expected(make(), atoms)
    with torch.inference_mode():
        LAMMPSPotential(make(), dtype="float32").compute_forces(given)
    assert_close(given.forces, whole["forces"], 1e-5)
    error = abs(given.energy - whole["energy"].item())
    assert 0 < error < 1e-4


class WithoutKokkos:
    """What ML-IAP has without Kokkos: nothing is exchanged, and ``eatoms`` can only be set."""

    def __init__(self, given):
        for name in ("nlocal", "ntotal", "npairs", "elems", "pair_i", "pair_j", "rij"):
            setattr(self, name, getattr(given, name))
        self.given = given

    eatoms = property(None, lambda self, values: setattr(self, "set", values))

    def update_pair_forces(self, pairs):
        self.given.update_pair_forces_gpu(torch.from_numpy(pairs))


def test_without_kokkos_one_layer_works():
    potential = make(layers=1)
    data = WithoutKokkos(LAMMPSData(structure(), SPECIES, CUTOFF))
    LAMMPSPotential(potential).compute_forces(data)
    whole = expected(potential, structure())
    assert_close(data.given.forces, whole["forces"])
    assert_close(data.set, whole["energies"])
    assert_close([data.energy], whole["energy"])


def test_without_kokkos_several_layers_are_refused():
    data = WithoutKokkos(LAMMPSData(structure(), SPECIES, CUTOFF))
    with pytest.raises(ValueError, match=r"3 layers exchanges.*with Kokkos.*one layer"):
        LAMMPSPotential(make()).compute_forces(data)


def test_types_without_an_element_are_refused():
    given = LAMMPSData(structure(), SPECIES, CUTOFF)
    given.elems[3] = -1
    with pytest.raises(ValueError, match=r"NULL.*one of O H C"):
        LAMMPSPotential(make()).compute_forces(given)


def test_the_file_knows_how_many_edges_are_computed_together(tmp_path):
    potential = make()
    potential.edges_at_a_time = 40
    write_lammps(potential, tmp_path / "lammps.pt")
    assert torch.load(tmp_path / "lammps.pt", weights_only=False).potential.edges_at_a_time == 40


def test_the_file_says_what_lammps_asks_for(tmp_path):
    make().save(tmp_path / "potential.pt")
    write_lammps(tmp_path / "potential.pt", tmp_path / "lammps.pt", dtype="float32")
    loaded = torch.load(tmp_path / "lammps.pt", weights_only=False)  # as LAMMPS does
    assert (loaded.element_types, loaded.rcutfac) == (["O", "H", "C"], CUTOFF / 2)
    assert (loaded.ndescriptors, loaded.nparams) == (1, 1)
    assert loaded.potential.dtype == torch.float32
    assert not loaded.potential.training
    given = [LAMMPSData(structure(), SPECIES, CUTOFF) for _ in range(2)]
    loaded.compute_forces(given[0])
    LAMMPSPotential(make(), dtype="float32").compute_forces(given[1])
    assert torch.equal(given[0].forces, given[1].forces)


@pytest.mark.thorough
def test_the_file_is_read_by_a_process_that_knows_neither_ase_nor_lammps(tmp_path):
    write_lammps(make(), tmp_path / "lammps.pt")
    script = (
        "import sys; sys.modules['ase'] = sys.modules['lammps'] = None\n"
        "import torch; print(torch.load(sys.argv[1], weights_only=False).element_types)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "lammps.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['O', 'H', 'C']"


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"path: LAMMPS reads files that end in \.pt or \.pth, got '.*model\.lammps'"):
        LAMMPSPotential(make()).save(tmp_path / "model.lammps")
    with pytest.raises(TypeError, match=r"potential: expected .* got 3"):
        LAMMPSPotential(3)
    with pytest.raises(ValueError, match=r"readout_irreps: an energy"):
        LAMMPSPotential(make(readout_irreps="0e+1o"))
    with pytest.raises(ValueError, match=r"dtype: expected float32 or float64, got float16"):
        LAMMPSPotential(make(), dtype="float16")
