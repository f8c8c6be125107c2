"""MD17 and rMD17: what torch_geometric.datasets.MD17 reads, with float64 energies, in eV, with the published splits."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from datasets.frame_dataset import FrameDataset
from datasets.md17_files import PublishedFiles, find
from datasets.npz import Keys, read_frames
from datasets.published_splits import read_split
from datasets.units import KCAL_PER_MOL

MD17_KEYS = Keys(z="z", pos="R", energy="E", forces="F", energy_unit=KCAL_PER_MOL)
RMD17_KEYS = Keys(z="nuclear_charges", pos="coords", energy="energies", forces="forces", energy_unit=KCAL_PER_MOL)
REMARK = ". MD17 and rMD17 name their arrays differently: see the argument `revised`"


class MD17(FrameDataset):
    r"""Molecular dynamics of small organic molecules at 500 K with DFT energies and forces, original or revised.

    `Chmiela et al. <https://arxiv.org/abs/1611.04678>`_ published MD17; `Christensen and von Lilienfeld
    <https://arxiv.org/abs/2007.09593>`_ recomputed 100,000 frames of each molecule with tight settings (PBE/def2-SVP),
    since the original energies are noisy. Train on no more than 1,000 frames: those of a trajectory are correlated.

    Files are in kcal/mol; items are in eV and Angstrom, see :class:`FrameDataset`.

    Args:
        root: A folder with the published files. One that holds ``rmd17_ethanol.npz`` itself, in ``npz_data/`` or in
            ``rmd17/npz_data/`` (the unpacked archive) is only read. Otherwise the layout is that of
            :class:`torch_geometric.datasets.MD17`, which downloads what is missing.
        molecule: As :meth:`molecules` lists them, for example ``"ethanol"`` or ``"salicylic acid"``.
        revised: rMD17 (default) or the original MD17.
        transform, pre_transform, pre_filter, cache, num_workers: As in :class:`StructureDataset`. rMD17 has 100,000
            frames and MD17 up to a million: where few are used, make neighbour lists only of those,
            ``[RadiusGraph(5.0)(frame) for frame in dataset[train]]``.

    Raises:
        ValueError: there is no such molecule, or a file is cut short or not what its name says.
        FileNotFoundError: the file is not below ``root`` and could not be downloaded.
    """

    def __init__(
        self,
        root: str | Path,
        molecule: str = "ethanol",
        revised: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        if molecule not in self.molecules(revised):
            family = "rMD17" if revised else "MD17"
            raise ValueError(f"molecule: {family} has {self.molecules(revised)}, got {molecule!r}")
        self.molecule, self.revised = molecule, revised
        name = f"revised {molecule}" if revised else molecule
        (self.file,) = find(Path(root).expanduser(), name, [PublishedFiles.file_names[name]])
        frames = read_frames(self.file, RMD17_KEYS if revised else MD17_KEYS, REMARK)
        super().__init__(frames, transform, pre_transform, pre_filter, cache, num_workers)

    @staticmethod
    def molecules(revised: bool = True) -> list[str]:
        """The names that ``molecule`` may have."""
        names = [name for name in PublishedFiles.file_names if "CCSD" not in name]
        return [name.removeprefix("revised ") for name in names if name.startswith("revised ") == revised]

    def published_split(self, number: int = 1) -> tuple[Tensor, Tensor]:
        """Indices (train,) and (test,) int64 of rMD17's published split 1 to 5; ``dataset[train]`` trains.

        Raises:
            ValueError: this is the original MD17 or a selection of the file's frames, or a file of the split is not as
                published.
            FileNotFoundError: there is no folder ``splits`` with the npz files.
        """
        if not self.revised:
            raise ValueError(
                "published_split: MD17 has none, only rMD17; use random_split(train, validation, test, seed)"
            )
        self.check_whole("published_split", self.file)
        return read_split(self.file, number, self.num_frames_read)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.molecule!r}, revised={self.revised}, frames={len(self)})"
