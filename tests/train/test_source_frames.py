import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from train.source_frames import SAME_PLACE, SourceFrame, same_structures, warn_of_duplicates


def frame(x: float, file: str = "a.xyz", z: int = 1, length: float = 0.0, energy: float = 0.0) -> SourceFrame:
    """Two atoms; in a cubic periodic cell if ``length`` is not 0."""
    data = Data(
        z=torch.tensor([z, 8]),
        pos=torch.tensor([[x, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64),
        energy=torch.tensor([energy], dtype=torch.float64),
    )
    if length:
        data.cell = length * torch.eye(3, dtype=torch.float64)[None]
        data.pbc = torch.ones(1, 3, dtype=torch.bool)
    return SourceFrame(data, Path("folder") / file, 0)


def assert_no_warning(train, validation, test) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_duplicates(train, validation, test)


def test_the_place_names_file_and_frame():
    assert frame(0.0).place == f"{Path('folder/a.xyz')}: frame 0"


def test_duplicates_are_counted_and_their_files_named_in_one_warning():
    train = [frame(x, "train.xyz") for x in (1, 2, 3)]
    validation = [frame(3, "val.xyz"), frame(7, "other.xyz")]
    test = [frame(x, "test.xyz", energy=9.0) for x in (1, 2, 7)]
    with pytest.warns(UserWarning, match="the same structures in several parts") as warned:
        warn_of_duplicates(train, validation, test)
    (message,) = (str(warning.message) for warning in warned)
    assert "1 of the validation frames are training frames (train.xyz, val.xyz)" in message
    assert "2 of the test frames are training frames (test.xyz, train.xyz)" in message
    assert "1 of the test frames are validation frames (other.xyz, test.xyz)" in message


@pytest.mark.parametrize(
    "other", [frame(1.0 + 3e-6), frame(1.0, z=2), frame(1.0, length=9.0)], ids=["positions", "elements", "cell"]
)
def test_structures_that_differ_are_no_duplicates(other):
    assert_no_warning([frame(1.0)], [other], [frame(5.0)])


def test_another_cell_is_another_crystal():
    assert_no_warning([frame(1.0, length=9.0)], [frame(1.0, length=9.1)], [frame(5.0)])


def test_zeros_have_no_sign():
    with pytest.warns(UserWarning, match="1 of the test frames are training frames"):
        warn_of_duplicates([frame(0.0)], [frame(5.0)], [frame(-0.0)])


def test_frames_twice_in_one_part_are_no_question():
    assert_no_warning([frame(1.0), frame(1.0)], [frame(2.0)], [frame(3.0)])


def test_rounding_makes_no_other_structure():
    """Whatever the last digit: two numbers on both sides of where rounding goes up are near."""
    for x in (1.0, 1.0000005, 123.4567895):
        with pytest.warns(UserWarning, match="1 of the test frames are training frames"):
            warn_of_duplicates([frame(x)], [frame(5.0)], [frame(x + 9e-7)])


def test_same_structures_are_those_that_a_search_of_all_pairs_finds():
    random = np.random.default_rng(0)
    places = np.round(random.uniform(0, 3e-5, size=80), 6)
    ones, others = ([frame(x, z=1 + n % 2) for n, x in enumerate(part)] for part in (places[:40], places[40:]))
    expected = {
        i
        for i, one in enumerate(ones)
        for other in others
        if torch.equal(one.frame.z, other.frame.z) and (one.frame.pos - other.frame.pos).abs().max() <= SAME_PLACE
    }
    assert {i for i, _ in same_structures(ones, others)} == expected
    assert 0 < len(expected) < 40
