import numpy as np
import pytest

from train.division import divide

# Of 40 frames all have an energy, the last five a stress, and two of these a dipole.
LABELLED = np.arange(40)[:, None] >= [0, 35, 38]


def labels_of(number: int) -> list[int]:
    return np.flatnonzero(LABELLED[number]).tolist()


@pytest.mark.parametrize("seed", range(10))
def test_rare_labels_are_validated_and_trained(seed):
    frames = list(range(40))
    train, validation, test = divide(frames, 2, 4, seed, LABELLED)
    assert sorted([*train, *validation, *test]) == frames
    assert (len(validation), len(test)) == (2, 4)
    left = {name for number in train for name in labels_of(number)}
    seen = {name for number in validation for name in labels_of(number)}
    several = {name for name in left | seen if sum(name in labels_of(n) for n in [*train, *validation]) > 1}
    assert several <= seen
    assert divide(frames, 2, 4, seed)[2] == test


def test_frames_alike_are_drawn_as_ever():
    frames = list(range(20))
    assert divide(frames, 5, 3, 0, np.ones((20, 1), bool)) == divide(frames, 5, 3, 0)


def test_no_frame_left_to_train_on_is_named():
    with pytest.raises(ValueError, match="train_file: 4 frames, of which 4 are to be held out"):
        divide([1, 2, 3, 4], 2, 2, 0)
