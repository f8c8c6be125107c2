"""The recipe for i-PI of docs/engines.md: ASE's client, with ASE's own server in the place of i-PI."""

import threading
import uuid

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.socketio import SocketClient, SocketIOCalculator

from pyg_cgconv.potential import ASECalculator, Potential


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "stress"), [(rattled(molecule("H2O")), False), (rattled(bulk("Cu", cubic=True)), True)], ids=["H2O", "Cu"]
)
def test_values_come_through_a_socket_at_each_step(tmp_path, atoms, stress):
    potential = Potential(sorted(set(atoms.symbols)), channels=2, lmax=1, layers=1, dtype="float64")
    potential.save(tmp_path / "potential.pt")
    name = uuid.uuid4().hex  # of a socket in /tmp

    def client():
        own = atoms.copy()
        own.calc = ASECalculator(tmp_path / "potential.pt", device="cpu")
        SocketClient(unixsocket=name).run(own, use_stress=stress)

    direct, moved = ASECalculator(tmp_path / "potential.pt", device="cpu"), atoms.copy()
    with SocketIOCalculator(unixsocket=name, timeout=60) as server:
        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        moved.calc = server
        for seed in range(3):
            moved.rattle(0.02, seed=seed)
            moved.set_cell(moved.cell * 1.01, scale_atoms=True)
            assert moved.get_potential_energy() == pytest.approx(direct.get_potential_energy(moved), abs=1e-9)
            np.testing.assert_allclose(moved.get_forces(), direct.get_forces(moved), atol=1e-9)
            if stress:
                np.testing.assert_allclose(moved.get_stress(), direct.get_stress(moved), atol=1e-9)
    thread.join(timeout=60)
    assert not thread.is_alive()
