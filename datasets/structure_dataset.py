"""Structures in memory as a PyG dataset: what all data sets here have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from datasets.ase_atoms import to_ase
from datasets.frame_cache import fingerprint, folder_of_cache, load, save
from datasets.joined import Part, item
from datasets.preprocessing import processed
from datasets.spread import Statistics, statistics

if TYPE_CHECKING:
    from ase import Atoms

Collated = tuple[Data, dict[str, Tensor] | None]  # all items in one, and where each begins; None for a single item


class StructureDataset(InMemoryDataset):
    r"""Structures, read once; in memory, or mapped from a file where ``cache`` says.

    Neighbour lists are made by ``pre_transform=pyg_cgconv.RadiusGraph(cutoff)``, once for each structure, by
    ``num_workers`` processes, and are read from ``cache`` the next time. They are the same however they were made:
    sorted by receiver, also in a batch.

    Args:
        read: Reads the structures, joined. It gets a folder whose files may hold them, or None.
        files: What it reads.
        settings: All else that decides what it gives, as values with a repr: a version of the reader, arguments.
        transform: Applied to an item at every access.
        pre_transform: Applied to each structure once, here.
        pre_filter: Called with each structure before ``pre_transform``; only those for which it returns True are kept.
        cache: A folder in which the structures, after ``pre_filter`` and ``pre_transform``, are kept for the next time.
            They may be larger than the memory: the file is mapped, so that only what is being looked at takes memory,
            and processes share it. A kept file serves only the same content of ``files``, the same arguments and the
            same state of ``pre_transform`` and ``pre_filter``; whatever else is asked for is read anew and kept beside
            it. Changes in the code of a transform are not seen: empty the folder then.
        num_workers: Processes that apply ``pre_filter`` and ``pre_transform``; 0 applies them in this one, as those
            need that change from call to call.

    Raises:
        ValueError: ``pre_filter`` keeps nothing; with ``cache``, ``pre_transform`` or ``pre_filter`` is a function,
            which cannot be told from another.
    """

    slices: dict[str, Tensor] | None

    def __init__(
        self,
        read: Callable[[Path | None], Collated],
        files: Sequence[Path],
        settings: tuple,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        super().__init__(None, transform, pre_transform, pre_filter)
        self.is_mapped = cache is not None
        if cache is None:
            self.num_frames_read = self._make(read, num_workers)
            return
        name = fingerprint(files, settings, pre_transform=pre_transform, pre_filter=pre_filter)
        kept = Path(cache).expanduser() / f"frames-{name}.pt"
        if not kept.exists():
            with folder_of_cache(kept.parent) as folder:
                count = self._make(read, num_workers, folder)
                save(kept, self._data, self.slices, count)
        self.data, self.slices, self.num_frames_read = load(kept)

    def _make(self, read: Callable[[Path | None], Collated], num_workers: int, folder: Path | None = None) -> int:
        """Reads, filters and transforms the structures, in files of ``folder`` if there is one, and returns how many
        were read."""
        self.data, self.slices = read(folder)
        count = self.len()
        if self.pre_filter is not None or self.pre_transform is not None:
            self.data, self.slices = processed(self, self.pre_filter, self.pre_transform, num_workers, folder)
        return count

    def get(self, idx: int) -> Data:
        """The structure before ``transform``. Of those in files, nothing stays in memory."""
        return item(*self.columns(), idx) if self.is_mapped and self.len() > 1 else super().get(idx)

    def columns(self) -> Part:
        """All structures in one, before ``transform``, and where in it each begins."""
        data, begins = self._data, self.slices
        if begins is None:
            sizes = {name: value.shape[data.__cat_dim__(name, value) or 0] for name, value in data.to_dict().items()}
            begins = {name: torch.tensor([0, size]) for name, size in sizes.items()}
        return data, begins

    def check_whole(self, wanted: str, source: object) -> None:
        """Raises ValueError, in the name of ``wanted``, where this is a selection of the structures of ``source``."""
        if self._indices is not None or self.len() != self.num_frames_read:
            raise ValueError(
                f"{wanted}: it numbers the {self.num_frames_read} frames of {source} in their order there, "
                f"but this dataset is a selection of {len(self)}; split before filtering, shuffling or selecting"
            )

    def random_split(self, train: int, validation: int, test: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Disjoint random indices (train,), (validation,), (test,) int64 into this dataset, the same for the same seed.

        For one seed and length, the test frames do not depend on the other two counts, so that learning curves share
        them.

        Raises:
            ValueError: a count is negative, or there are fewer frames than asked for.
        """
        counts = {"train": train, "validation": validation, "test": test}
        for name, count in counts.items():
            if count < 0:
                raise ValueError(f"{name}: expected a number of frames, got {count}")
        if sum(counts.values()) > len(self):
            raise ValueError(
                f"{counts}: {sum(counts.values())} frames in all, but the dataset has {len(self)}; ask for fewer"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        test_indices, train_indices, validation_indices = order[: sum(counts.values())].split([test, train, validation])
        return train_indices, validation_indices, test_indices

    def to_ase(self) -> list[Atoms]:
        """The structures of this data set, or of a selection such as ``dataset[train]``, as :func:`datasets.to_ase`
        makes them of each item.

        Raises:
            ImportError: ASE is not installed.
        """
        return [to_ase(data) for data in self]

    def statistics(self, cutoff: float | None = None) -> Statistics:
        """What this data set, or a selection such as ``dataset[train]``, holds; see :func:`datasets.statistics`.

        Args:
            cutoff: Angstrom; neighbours of each atom that are nearer are counted. Without it nothing is said of them.

        Raises:
            ImportError: ASE is not installed.
            ValueError: ``cutoff`` is not positive.
        """
        return statistics(self, cutoff)
