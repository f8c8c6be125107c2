"""QM9: 130,831 molecules of up to nine heavy atoms with twelve properties each."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets.qm9_files import PACK_FILES, RAW_FILES, Molecules, download_raw, find_pack, read_pack, read_raw
from datasets.qm9_sample import SAMPLE, read_sample
from datasets.qm9_targets import TARGETS, atom_reference, checked_target
from datasets.structure_dataset import Collated, StructureDataset

# Part of every cache file's name: raise it whenever the same file would be read as other molecules.
READER_VERSION = 1
# Training and validation, the rest tests: what most published errors are for.
USUAL_TRAIN, USUAL_VALIDATION = 110_000, 10_000


class PropertyDataset(StructureDataset):
    r"""Molecules with the twelve properties of QM9.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom, a minimum of energy (B3LYP/6-31G(2df,p)),
    - ``y`` (1, 12) float64, the properties in the order and units of :data:`datasets.qm9_targets.TARGETS`,
    - ``number`` (1,) int64, the molecule's number in GDB-9, from 1.

    Energies stay float64: molecules have energies of thousands of eV, of which float32 keeps no more than about 1 meV.
    Subtract a reference before casting. There are no edges: pass
    ``pre_transform=pyg_cgconv.neighbors.RadiusGraph(cutoff)``.
    """

    @staticmethod
    def target_index(target: str) -> int:
        """The column of ``y``. Raises ValueError if there is no such target."""
        return list(TARGETS).index(checked_target(target).name)

    @staticmethod
    def unit(target: str) -> str:
        """The unit of a target. Raises ValueError if there is no such target."""
        return checked_target(target).unit

    @staticmethod
    def atom_reference(target: str) -> dict[int, float]:
        """See :func:`datasets.qm9_targets.atom_reference`."""
        return atom_reference(target)


class QM9(PropertyDataset):
    r"""The data set of `Ramakrishnan et al. <https://doi.org/10.1038/sdata.2014.22>`_ without the 3,054 molecules that
    are not what their formula says (``uncharacterized.txt``): 130,831 molecules in the order of GDB-9.

    It is read from the first of these that is there; ``dataset.source`` names it:

    1. ``root`` or ``root/raw`` with ``gdb9.sdf``, ``gdb9.sdf.csv`` and ``uncharacterized.txt``, the layout of
       :class:`torch_geometric.datasets.QM9`. Coordinates have four decimals there.
    2. The package `qm9pack <https://pypi.org/project/qm9pack>`_, if installed. Coordinates have ten decimals there.
    3. A download of 1. to ``root/raw``.

    Args:
        root: A folder, see above; None stands for the package.
        transform, pre_transform, pre_filter, cache, num_workers: As in :class:`StructureDataset`. Reading takes a
            quarter of a minute and neighbour lists take a minute of one core, so a ``cache`` is worth its place.

    Raises:
        FileNotFoundError: there is no such file and it could not be downloaded, or there is no ``root`` and no package.
        ValueError: a file is cut short or foreign.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        self.source, names, read = _find(root)
        super().__init__(
            lambda _: _collated(read(self.source)),
            [self.source / name for name in names],
            ("QM9", READER_VERSION),
            transform,
            pre_transform,
            pre_filter,
            cache,
            num_workers,
        )

    def usual_split(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Random indices (110000,), (10000,) and (10831,) int64 to train, to validate and to test.

        Raises:
            ValueError: this dataset is a selection of QM9.
        """
        test = len(self) - USUAL_TRAIN - USUAL_VALIDATION
        if test <= 0:
            raise ValueError(f"usual_split: it is of all of QM9, but here are {len(self)} molecules; use random_split")
        return self.random_split(USUAL_TRAIN, USUAL_VALIDATION, test, seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.source)!r}, molecules={len(self)})"


class QM9Sample(PropertyDataset):
    r"""5,000 random molecules of QM9 that come with the project: no network. ``datasets/data/README.md`` says more.

    They are shuffled, so any slice of them is a random sample. Arguments are those of :class:`StructureDataset`.
    """

    def __init__(
        self,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        super().__init__(
            lambda _: _collated(read_sample(SAMPLE)),
            [SAMPLE],
            ("QM9Sample", READER_VERSION),
            transform,
            pre_transform,
            pre_filter,
            cache,
            num_workers,
        )


def _find(root: str | Path | None) -> tuple[Path, tuple[str, ...], Callable[[Path], Molecules]]:
    """The folder of the files, their names, and what reads them."""
    if root is not None:
        root = Path(root).expanduser()
        for folder in (root, root / "raw"):
            missing = [name for name in RAW_FILES if not (folder / name).is_file()]
            if not missing:
                return folder, RAW_FILES, read_raw
            if len(missing) < len(RAW_FILES):
                raise FileNotFoundError(f"{folder}: no {', '.join(missing)} beside the other files of QM9")
    if (pack := find_pack()) is not None:
        return pack, PACK_FILES, read_pack
    if root is None:
        raise FileNotFoundError(
            "root: none given, and the package qm9pack is not installed; give a folder, to which QM9 is downloaded if "
            "it is not there, or pip install qm9pack, or use QM9Sample"
        )
    download_raw(root / "raw")
    return root / "raw", RAW_FILES, read_raw


def _collated(molecules: Molecules) -> Collated:
    """What InMemoryDataset.collate makes of one Data a molecule."""
    data = Data(
        z=torch.from_numpy(molecules.z),
        pos=torch.from_numpy(molecules.pos),
        y=torch.from_numpy(molecules.targets),
        number=torch.from_numpy(molecules.number),
    )
    by_molecule = torch.arange(len(molecules.number) + 1)
    by_atom = torch.cat([torch.zeros(1, dtype=torch.int64), torch.from_numpy(molecules.num_atoms).cumsum(0)])
    return data, {"z": by_atom, "pos": by_atom, "y": by_molecule, "number": by_molecule}
