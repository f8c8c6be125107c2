"""The embedded set."""

from collections.abc import Callable
from pathlib import Path

from datasets.frame_dataset import FrameDataset
from datasets.npz import Keys, read_frames

FILE = Path(__file__).parent / "data" / "ethanol-pbe-500K.npz"
KEYS = Keys(z="numbers", pos="positions", energy="energies", forces="forces", energy_unit=1.0)


class EthanolPBE(FrameDataset):
    r"""1,000 frames of ethanol at 500 K with PBE/def2-SVP energies and forces, computed for this project: no network.

    Not MD17: the level of theory is rMD17's, the geometries are from GFN2-xTB dynamics. ``datasets/data/README.md``
    says how they were made and how far they were checked. Frames are shuffled, so any slice of them is a random sample.
    Items and arguments are those of :class:`FrameDataset`.
    """

    def __init__(
        self,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        cache: str | Path | None = None,
        num_workers: int = 0,
    ):
        super().__init__(read_frames(FILE, KEYS), transform, pre_transform, pre_filter, cache, num_workers)
