"""Makes the embedded set `ethanol-pbe-500K`: 1,000 ethanol frames with PBE/def2-SVP energies and forces.

    python datasets/generate_ethanol.py sample   --scratch DIR     # geometries: GFN2-xTB Langevin dynamics at 500 K
    python datasets/generate_ethanol.py label    --scratch DIR     # energies and forces: PBE/def2-SVP, one file a frame
    python datasets/generate_ethanol.py assemble --scratch DIR     # whatever is labelled so far -> one compressed npz

Every step continues where it stopped and may be killed at any moment: a trajectory or a frame is written whole (to a
temporary name, then renamed) or not at all, and depends on nothing but its own number. Wants `pip install ase tblite
pyscf`, and about 4 core-seconds a frame. `data/README.md` tells what was measured about the result.

Two settings of the environment are worth having: `OPENBLAS_CORETYPE=Haswell` doubles the speed of matrix products on
processors that PySCF's own, older OpenBLAS does not know; `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2000000000` saves
a fifth of the time, as memory is not given back after every array.
"""

import argparse
import multiprocessing
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: nine atoms keep one thread busy, so one process a core

import numpy as np
from ase import Atoms, units

FRAMES = 1000
TRAJECTORIES = 20
FRAMES_PER_TRAJECTORY = FRAMES // TRAJECTORIES

TEMPERATURE = 500.0  # K, as in MD17
TIME_STEP = 0.5  # fs, a twentieth of the O-H stretching period
FRICTION = 0.01  # 1/fs: velocities are forgotten in 100 fs
EQUILIBRATION = 10_000  # steps, 5 ps from the built geometry
SPACING = 500  # steps between two frames of a trajectory, 250 fs: 2.5 friction times

FUNCTIONAL = "pbe"
BASIS = "def2-svp"
AUXILIARY_BASIS = "def2-universal-jfit"  # density fitting as rMD17 has it: without it, forces move by 0.6 meV/A
GUESS_GRID_LEVEL = 1
# (radial, angular) points of an atom, before pruning. Mean and largest force error against PySCF's level 7, meV/A:
# level 3 0.5 and 1.9, this 0.06 and 0.35, level 4 (half as much time again) 0.02 and 0.08; 3 lacks angular points.
GRID = {"H": (40, 302), "C": (60, 590), "O": (60, 590)}
ENERGY_CONVERGENCE = 1e-9  # Hartree
LARGEST_NET_FORCE = 1e-6  # eV/Angstrom: a frame beyond it is refused

POSITION_DECIMALS = 6  # Angstrom. Rounded before labelling, so labels belong to exactly these positions
FORCE_DECIMALS = 8  # eV/Angstrom
DESTINATION = Path(__file__).parent / "data" / "ethanol-pbe-500K.npz"


def write_whole(path, **arrays):
    """Writes an npz so that `path` holds either all of it or nothing."""
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    with open(unfinished, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(unfinished, path)


# === geometries ===


def sample_trajectory(number, path):
    """Writes `positions` (FRAMES_PER_TRAJECTORY, 9, 3) in Angstrom and `numbers` (9,) of one independent trajectory."""
    from ase.build import molecule
    from ase.constraints import FixCom
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from tblite.ase import TBLite

    rng = np.random.RandomState(number)
    atoms = molecule("CH3CH2OH")
    atoms.euler_rotate(*(360 * rng.rand(3)))
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    # fixcm=True would take the centre's motion out of every step's noise and so cool the rest; FixCom does not.
    atoms.set_constraint(FixCom())
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms,
        TIME_STEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )
    dynamics.run(EQUILIBRATION)
    positions = []
    for _ in range(FRAMES_PER_TRAJECTORY):
        dynamics.run(SPACING)
        positions.append(atoms.positions - atoms.get_center_of_mass())
    write_whole(path, positions=np.round(positions, POSITION_DECIMALS), numbers=atoms.numbers)


def shuffled_frames():
    """(trajectory, index in it) of frame 0, 1, ...: shuffled, so that the first n frames are a random sample."""
    order = np.random.RandomState(0).permutation(FRAMES)
    return [divmod(int(place), FRAMES_PER_TRAJECTORY) for place in order]


# === labels ===


def energy_and_forces(atoms):
    """PBE/def2-SVP energy (eV) and forces (n, 3) (eV/Angstrom) of an ase.Atoms.

    Raises:
        RuntimeError: the self-consistent field did not converge, or the forces do not sum to zero.
    """
    from pyscf import dft, gto

    molecule = gto.M(
        atom=[(int(z), r) for z, r in zip(atoms.numbers, atoms.positions / units.Bohr, strict=True)],
        basis=BASIS,
        unit="Bohr",
        verbose=0,
    )
    field = dft.RKS(molecule, xc=FUNCTIONAL).density_fit(auxbasis=AUXILIARY_BASIS)
    field.with_df.build()  # keep the three-centre integrals: PySCF would compute them anew in every iteration
    # A density from a coarse grid halves the iterations on the fine one. Frames are too far apart to start from
    # each other's density, and a frame that depends on no other can be repeated alone.
    field.grids.level = GUESS_GRID_LEVEL
    field.conv_tol = 1e-7
    field.conv_check = False  # an iteration more after convergence, that moves forces by 0.002 meV/A
    field.kernel()
    density = field.make_rdm1()
    field.grids = dft.gen_grid.Grids(molecule)
    field.grids.atom_grid = GRID
    field.conv_tol = ENERGY_CONVERGENCE
    energy = field.kernel(density)
    gradient = field.nuc_grad_method()
    gradient.grid_response = True  # without it the net force is up to 3 meV/A instead of zero
    forces = -gradient.kernel() * units.Hartree / units.Bohr
    if not field.converged:
        raise RuntimeError("the self-consistent field did not converge")
    if abs(forces.sum(axis=0)).max() > LARGEST_NET_FORCE:
        raise RuntimeError(f"net force {forces.sum(axis=0)} eV/Angstrom, expected below {LARGEST_NET_FORCE}")
    return energy * units.Hartree, forces


def label_frame(source, index, path):
    """Labels frame `index` of the trajectory file `source` and writes it to `path`."""
    with np.load(source) as trajectory:
        atoms = Atoms(trajectory["numbers"], trajectory["positions"][index])
    energy, forces = energy_and_forces(atoms)
    write_whole(path, numbers=atoms.numbers, positions=atoms.positions, energy=energy, forces=forces)


# === the three steps ===


def attempt(task):
    """Runs one task in a worker; a failure is told, not raised, so that it costs one frame and not the run."""
    function, arguments = task
    try:
        function(*arguments)
    except Exception as error:
        return f"{arguments[-1]}: {error}"
    return None


def run_missing(tasks, workers):
    """Runs each (function, arguments) whose last argument, the file it writes, does not exist yet."""
    missing = [task for task in tasks if not task[1][-1].exists()]
    print(f"{len(tasks) - len(missing)} done, {len(missing)} to do", flush=True)
    with multiprocessing.Pool(workers) as pool:
        for count, failure in enumerate(pool.imap_unordered(attempt, missing), 1):
            if failure or count % 10 == 0:
                print(failure or f"{count} of {len(missing)}", flush=True)


def sample(geometries, labels, workers):
    geometries.mkdir(parents=True, exist_ok=True)
    run_missing([(sample_trajectory, (k, geometries / f"{k:02}.npz")) for k in range(TRAJECTORIES)], workers)


def label(geometries, labels, workers):
    labels.mkdir(parents=True, exist_ok=True)
    tasks = [
        (label_frame, (geometries / f"{trajectory:02}.npz", index, labels / f"{frame:04}.npz"))
        for frame, (trajectory, index) in enumerate(shuffled_frames())
    ]
    run_missing(tasks, workers)


def assemble(geometries, labels, workers):
    """Writes the labelled frames, in shuffled order, into one file: eV, Angstrom, eV/Angstrom."""
    present = [(frame, labels / f"{frame:04}.npz") for frame in range(FRAMES) if (labels / f"{frame:04}.npz").exists()]
    frames = [dict(np.load(path)) for _, path in present]
    trajectory = np.array(shuffled_frames())[[frame for frame, _ in present], 0]
    write_whole(
        DESTINATION,
        numbers=frames[0]["numbers"].astype(np.int64),
        positions=np.stack([frame["positions"] for frame in frames]),
        energies=np.array([float(frame["energy"]) for frame in frames]),
        forces=np.round([frame["forces"] for frame in frames], FORCE_DECIMALS),
        trajectory=trajectory.astype(np.int64),
    )
    print(f"{len(frames)} of {FRAMES} frames -> {DESTINATION} ({DESTINATION.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    steps = {"sample": sample, "label": label, "assemble": assemble}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for trajectories and labelled frames")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, one thread each")
    chosen = parser.parse_args()
    steps[chosen.step](chosen.scratch / "geometries", chosen.scratch / "labels", chosen.workers)
