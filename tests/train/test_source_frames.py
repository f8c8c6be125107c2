import warnings
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from train.source_frames import SourceFrame, warn_of_duplicates


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
    "other", [frame(1.0 + 1e-12), frame(1.0, z=2), frame(1.0, length=9.0)], ids=["positions", "elements", "cell"]
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
