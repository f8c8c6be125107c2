"""The random order of training frames: a function of the seed and the epoch, so that it can be taken up anywhere."""

from collections.abc import Iterator, Sequence

from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler):
    """A new random order in every epoch, dealt out to the devices in turn.

    A step of several devices takes the same frames as one of a single device with as many frames in all. An epoch whose
    frames cannot be dealt out evenly takes a few of them twice.

    Args:
        frames: the training frames.
        seed: of the order; epoch after epoch it is another one.
        devices: their number.
        device: the number of this one.
        epoch: the epoch to begin with.
        skip: frames of that epoch that this device has had already.
    """

    def __init__(self, frames: Sequence, seed: int, devices: int = 1, device: int = 0, epoch: int = 0, skip: int = 0):
        # PyTorch asks for a Dataset, and uses its length alone.
        super().__init__(frames, num_replicas=devices, rank=device, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.epoch, self._first_epoch, self._skip = epoch, epoch, skip

    def __iter__(self) -> Iterator[int]:
        indices = list(super().__iter__())
        return iter(indices[self._skip :] if self.epoch == self._first_epoch else indices)
