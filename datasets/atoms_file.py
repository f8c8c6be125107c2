"""Extended XYZ, or any other file that ASE reads, as a PyG dataset."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.atoms_frames import AtomsFrames
from datasets.atoms_labels import checked_labels
from datasets.atoms_reading import import_ase_io
from datasets.structure_dataset import StructureDataset

# Part of every cache file's name: raise it whenever the same file would be read as other frames.
READER_VERSION = 4


class AtomsFile(StructureDataset):
    r"""Molecules and crystals of any composition from the files that :func:`ase.io.read` understands.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom,
    - ``energy`` (1,) float64, eV,
    - ``forces`` (n, 3) float64, eV/Angstrom, those on fixed atoms included. A frame of a single atom may lack them, and
      holds zero then,
    - ``stress`` (1, 3, 3) float64, eV/Angstrom^3, symmetric, where the files have it or a virial :math:`W`, of which it
      is :math:`-W / V`. The sign is ASE's and that of :class:`pyg_cgconv.Potential`: positive where the structure wants
      to shrink,
    - of ``labels`` that are asked for, ``energies`` (n,), those of atoms in eV, ``charges`` (n,), those of atoms in e,
      and ``dipole`` (1, 3) in e Angstrom, of molecules, about the centre of mass, all float64,
    - ``charge`` (1,) float64, the total charge in e, if any frame has it; 0 of those without,
    - ``cell`` (1, 3, 3) float64, lattice vectors as rows, Angstrom, and ``pbc`` (1, 3) bool, if any frame is periodic.
      Every frame has them then, so that PyG can batch all: a molecule with ``pbc`` False.

    Frames may have different labels: one that a frame lacks and others have is NaN there.

    Files come in the order given, frames in the order of their file. Nothing is converted but a virial and the layout
    of a stress: custom keys must already be in these units and, for the stress, of this sign. Energies stay float64,
    see :class:`FrameDataset`. There are no edges: pass ``pre_transform=pyg_cgconv.neighbors.RadiusGraph(cutoff)``.

    Args:
        files: A path or a list of paths.
        cache: A folder in which the frames are kept for the next time, as in :class:`StructureDataset`; without it
            nothing is written to disk.
        labels: Those of ``"energy"``, ``"forces"``, ``"stress"``, ``"energies"``, ``"charges"`` and ``"dipole"`` that
            items hold. Of each there must be a frame that has it. By default energy and forces, and the stress if any
            frame has it or ``stress_key`` is given.
        energy_key, forces_key, stress_key: The names of the labels in ``Atoms.info`` or ``Atoms.arrays``, such as
            ``"REF_energy"``, or else among the calculator's results, such as ``"free_energy"``. By default the
            calculator's energy, forces and stress. A stress has 6 components in Voigt order (xx, yy, zz, yz, xz, xy),
            or 9.
        virial_key: The name of the virial, eV, from which the stress is taken. By default ``virial`` or ``virials``.
            Layouts are those of the stress. It is positive where the structure wants to grow.
        format: ASE's name of the format, for files whose name does not tell it.
        details: Whether items also hold what the files say of how much a frame counts, and where it comes from:
            ``weight`` (1, 6) float64, of the labels in the order above, ``config_weight`` times
            ``config_energy_weight``, ``config_forces_weight``, ``config_stress_weight`` (or ``config_virials_weight``),
            ``config_energies_weight``, ``config_charges_weight`` and ``config_dipole_weight``, each 1 if it is not
            there; ``config_type`` uint8, the bytes of the name, "Default" without one, of which
            ``bytes(data.config_type.tolist()).decode()`` makes it again; ``head_name`` uint8, likewise, the name of its
            level of theory, ``head`` in the file; ``constrained`` (1,) bool, whether atoms are held fixed; ``source``
            (1, 2) int64, the file among ``files`` and the frame in it.
        energies_key, charges_key, dipole_key: Likewise names of these labels. By default the calculator's.
        charge_key: The name of the total charge in ``Atoms.info``.
        transform, pre_transform, pre_filter, num_workers: As in :class:`StructureDataset`.

    Raises:
        ImportError: ASE is not installed.
        FileNotFoundError: there is no such file.
        ValueError: a file is cut short, foreign or without frames; no frame has a label; a frame holds values that
            cannot be, or has a label under two names with different values, of which no key chooses one, or only under
            a name such as ``REF_energy`` that no key gives; with ``cache``, ``pre_transform`` or ``pre_filter`` is a
            function, which cannot be told from another.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        cache: str | Path | None = None,
        labels: Sequence[str] | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        virial_key: str | None = None,
        format: str | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        num_workers: int = 0,
        details: bool = False,
        energies_key: str | None = None,
        charges_key: str | None = None,
        dipole_key: str | None = None,
        charge_key: str = "charge",
    ):
        ase = import_ase_io()
        self.files = _checked_files(files)
        keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key, "virial": virial_key}
        keys |= {"energies": energies_key, "charges": charges_key, "dipole": dipole_key}
        labels = checked_labels(labels, keys)
        super().__init__(
            lambda folder: AtomsFrames(self.files, format, labels, keys, details, charge_key).read(folder),
            self.files,
            (READER_VERSION, ase.__version__, labels, keys, format, details, charge_key),
            transform,
            pre_transform,
            pre_filter,
            cache,
            num_workers,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[str(path) for path in self.files]}, frames={len(self)})"


def _checked_files(files) -> list[Path]:
    if isinstance(files, str | os.PathLike):
        files = [files]
    if not isinstance(files, Sequence) or not files:
        raise ValueError(
            f"files: expected a path or a list of paths, got {files!r}; a set or a glob has no order: sort it"
        )
    paths = [Path(file).expanduser() for file in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    return paths
