"""Frames of one molecule in memory."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch_geometric.data import Data

from datasets.npz import Frames
from datasets.structure_dataset import Collated, StructureDataset


class FrameDataset(StructureDataset):
    r"""Geometries of one molecule with energy and forces.

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
        transform, pre_transform, pre_filter, cache, num_workers: As in :class:`StructureDataset`.

    Raises:
        ValueError: ``pre_filter`` keeps no frame.
    """

    def __init__(
        self,
        frames: Frames,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        settings = () if cache is None else (_digest(frames),)
        super().__init__(
            lambda _: _collated(frames), [], settings, transform, pre_transform, pre_filter, cache, num_workers
        )


def _digest(frames: Frames) -> str:
    digest = hashlib.sha256()
    for array in (frames.z, frames.pos, frames.energy, frames.forces):
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _collated(frames: Frames) -> Collated:
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
