import pytest
from torch.utils.data import DataLoader

from train.sampler import EpochSampler

FRAMES = list(range(24))


def test_epochs_differ_and_come_again():
    sampler = EpochSampler(FRAMES, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == FRAMES


@pytest.mark.parametrize("devices", [2, 3])
def test_a_step_of_several_devices_takes_the_frames_of_one(devices):
    one = list(DataLoader(FRAMES, batch_size=6, sampler=EpochSampler(FRAMES, seed=1)))
    several = [
        DataLoader(FRAMES, batch_size=6 // devices, sampler=EpochSampler(FRAMES, 1, devices, device))
        for device in range(devices)
    ]
    shared = [sorted(number for part in parts for number in part.tolist()) for parts in zip(*several, strict=True)]
    assert shared == [sorted(batch.tolist()) for batch in one]


def test_an_epoch_is_taken_up_where_it_was_left():
    whole = EpochSampler(FRAMES, seed=2, devices=2, device=1)
    whole.set_epoch(5)
    rest = EpochSampler(FRAMES, seed=2, devices=2, device=1, epoch=5, skip=7)
    assert list(rest) == list(whole)[7:]
    for sampler in (whole, rest):
        sampler.set_epoch(6)
    assert list(rest) == list(whole)
