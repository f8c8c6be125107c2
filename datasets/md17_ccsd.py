"""The coupled-cluster sets of MD17, with the training and test frames that they were published with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.frame_dataset import FrameDataset
from datasets.md17 import MD17_KEYS
from datasets.md17_files import PublishedFiles, find
from datasets.npz import Frames, read_frames

LEVELS = (" CCSD(T)", " CCSD")


class MD17CCSD(FrameDataset):
    r"""Frames of MD17 with coupled-cluster energies and forces (`Chmiela et al., 2018
    <https://arxiv.org/abs/1802.09238>`_): CCSD(T) for benzene, ethanol, malonaldehyde and toluene, CCSD for aspirin.

    1,000 training frames come first, then the test frames: 500, of ethanol 1,000, of toluene 501. Files are in
    kcal/mol; items are in eV and Angstrom, see :class:`FrameDataset`.

    Args:
        root: A folder with ``ethanol_ccsd_t-train.npz`` and ``ethanol_ccsd_t-test.npz``, which is only read, or
            otherwise one of the layout of :class:`torch_geometric.datasets.MD17`, which downloads what is missing.
        molecule: As :meth:`molecules` lists them.
        transform, pre_transform, pre_filter, cache, num_workers: As in :class:`StructureDataset`.

    Attributes:
        level: ``"CCSD(T)"`` or ``"CCSD"``.

    Raises:
        ValueError: there is no such molecule, or a file is cut short or not what its name says.
        FileNotFoundError: the files are not below ``root`` and could not be downloaded.
    """

    def __init__(
        self,
        root: str | Path,
        molecule: str = "ethanol",
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        names = _names()
        if molecule not in names:
            raise ValueError(f"molecule: coupled-cluster frames are of {self.molecules()}, got {molecule!r}")
        name = names[molecule]
        self.molecule, self.level = molecule, name.removeprefix(molecule).strip()
        stem = Path(PublishedFiles.file_names[name]).stem
        self.files = find(Path(root).expanduser(), name, [f"{stem}-train.npz", f"{stem}-test.npz"], train=True)
        train, test = (read_frames(file, MD17_KEYS) for file in self.files)
        self.num_train = len(train.pos)
        super().__init__(_joined(train, test, self.files), transform, pre_transform, pre_filter, cache, num_workers)

    @staticmethod
    def molecules() -> list[str]:
        """The names that ``molecule`` may have."""
        return sorted(_names())

    def published_split(self) -> tuple[Tensor, Tensor]:
        """Indices (train,) and (test,) int64 of the published frames; ``dataset[train]`` trains.

        Raises:
            ValueError: this is a selection of the files' frames.
        """
        self.check_whole("published_split", " and ".join(map(str, self.files)))
        return torch.arange(self.num_train), torch.arange(self.num_train, self.num_frames_read)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.molecule!r}, level={self.level!r}, frames={len(self)})"


def _names() -> dict[str, str]:
    """PyG's name of the set of each molecule."""
    return {
        name.removesuffix(level): name for name in PublishedFiles.file_names for level in LEVELS if name.endswith(level)
    }


def _joined(train: Frames, test: Frames, files: list[Path]) -> Frames:
    if not np.array_equal(train.z, test.z):
        raise ValueError(
            f"{files[1]}: array 'z' is {test.z.tolist()}, expected that of {files[0].name}, {train.z.tolist()}"
        )
    parts = {name: np.concatenate([getattr(train, name), getattr(test, name)]) for name in ("pos", "energy", "forces")}
    return Frames(z=train.z, **parts)
