"""Frames in memory as a PyG dataset."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from tqdm import tqdm

from datasets.npz import Frames

# A pre_transform over more frames than this takes minutes: show a progress bar.
FRAMES_WORTH_A_BAR = 10_000


class FrameDataset(InMemoryDataset):
    r"""Geometries of one molecule with energy and forces, read into memory; nothing is written to disk.

    An item is a :class:`~torch_geometric.data.Data` with

    - ``z`` (n,) int64, atomic numbers,
    - ``pos`` (n, 3) float64, Angstrom,
    - ``energy`` (1,) float64, eV,
    - ``forces`` (n, 3) float64, eV/Angstrom.

    Energies stay float64: molecules have energies of thousands of eV, of which float32 keeps no more than about 1 meV.
    Subtract a reference before casting. There are no edges: pass
    ``pre_transform=pyg_cgconv.neighbors.RadiusGraph(cutoff)``.

    Args:
        frames: What was read from a file.
        transform: Applied to an item at every access.
        pre_transform: Applied to each frame once, here.
        pre_filter: Called with each frame before ``pre_transform``; only those for which it returns True are kept.

    Raises:
        ValueError: ``pre_filter`` keeps no frame.
    """

    def __init__(
        self,
        frames: Frames,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
    ):
        super().__init__(None, transform, pre_transform, pre_filter)
        self.num_frames_read = len(frames.pos)
        self.data, self.slices = _collated(frames)
        if pre_filter is not None or pre_transform is not None:
            self.data, self.slices = self._processed()
            self._data_list = None  # the frames as they were before

    def _processed(self) -> tuple[Data, dict[str, Tensor] | None]:
        """The data after ``pre_filter`` and ``pre_transform``, once for each frame."""
        frames = (self.get(number) for number in range(self.len()))
        kept = []
        for frame in tqdm(frames, "frames", self.len(), disable=self.len() < FRAMES_WORTH_A_BAR):
            if self.pre_filter is None or self.pre_filter(frame):
                kept.append(frame if self.pre_transform is None else self.pre_transform(frame))
        if not kept:
            raise ValueError(f"pre_filter: it keeps none of the {self.len()} frames")
        return self.collate(kept)

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


def _collated(frames: Frames) -> tuple[Data, dict[str, Tensor] | None]:
    """What InMemoryDataset.collate makes of one Data a frame, without the Python loop over a million frames."""
    num_frames, num_atoms = frames.pos.shape[:2]
    data = Data(
        z=torch.from_numpy(frames.z).repeat(num_frames),
        pos=torch.from_numpy(frames.pos).reshape(-1, 3),
        energy=torch.from_numpy(frames.energy),
        forces=torch.from_numpy(frames.forces).reshape(-1, 3),
    )
    if num_frames == 1:  # PyG's convention for a single item
        return data, None
    by_frame = torch.arange(num_frames + 1)
    by_atom = num_atoms * by_frame
    return data, {"z": by_atom, "pos": by_atom, "energy": by_frame, "forces": by_atom}
