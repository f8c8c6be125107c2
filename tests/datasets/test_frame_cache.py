import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from datasets import AlloysEMT, FrameDataset, frame_cache
from datasets.joined import Part, joined
from datasets.npz import Frames
from pyg_cgconv.potential import RadiusGraph

FRAME = Data(pos=torch.zeros(1, 3))


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(content, path):
        path.write_text("half")
        raise RuntimeError("file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cache cannot be written \(file write failed\); make room") as caught:
        frame_cache.save(tmp_path / "frames.pt", FRAME, None, 1)
    assert caught.value.filename == str(tmp_path / "frames.pt")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be made or written \(File exists\); name another one") as caught:
        AlloysEMT(cache=tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(OSError, match=r"cannot be made or written \(.*\); name another one") as caught:
        AlloysEMT(cache="/proc/self")
    assert caught.value.filename == "/proc/self"


def test_nothing_in_a_cache_is_executed(tmp_path):
    class WritesAFile:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    torch.save({"data": FRAME.to_dict(), "slices": WritesAFile(), "num_frames_read": 1}, tmp_path / "frames.pt")
    with pytest.raises(ValueError, match="the cache file is broken"):
        frame_cache.load(tmp_path / "frames.pt")
    assert not (tmp_path / "written").exists()


# === larger than the memory ===


def file_behind(tensor: torch.Tensor) -> str:
    """The file that its memory is mapped from; empty for memory of the process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, _, _, _, *name = line.split(maxsplit=5)
        first, end = (int(address, 16) for address in place.split("-"))
        if first <= tensor.data_ptr() < end:
            return "".join(name)
    raise LookupError(tensor.data_ptr())


def parts(count: int) -> Iterator[Part]:
    """Sixteen frames in a part, of positions and edges: these are joined along their second dimension."""
    for number in range(count):
        pos = torch.full((16 * 2**7, 3), float(number), dtype=torch.float64)
        edges = torch.full((2, 16 * 2**8), number)
        begins = torch.arange(17)
        yield Data(pos=pos, edge_index=edges), {"pos": 2**7 * begins, "edge_index": 2**8 * begins}


def test_joined_frames_are_in_files_and_no_part_stays(tmp_path):
    living = []

    def watched():
        for part in parts(4):
            assert sum(tensor() is not None for tensor in living) <= 2  # the first and the last
            living.append(weakref.ref(part[0].pos))
            yield part
            del part

    data, _ = joined(watched(), tmp_path)
    for value in data.to_dict().values():
        assert file_behind(value).startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())  # they have no name
    assert file_behind(joined(parts(1))[0].pos) in ("", "[heap]")


def test_kept_frames_are_mapped_from_the_file(tmp_path):
    path = tmp_path / "frames.pt"
    frame_cache.save(path, *joined(parts(3)), 48)
    kept, slices, _ = frame_cache.load(path)
    assert {file_behind(value) for value in kept.to_dict().values()} == {str(path)}
    assert kept.pos[slices["pos"][32]].tolist() == [2.0, 2.0, 2.0]


def test_a_data_set_with_a_cache_is_mapped_also_when_it_is_made(tmp_path):
    water = Frames(
        np.array([8, 1, 1]), np.random.default_rng(0).normal(size=(3, 3, 3)), np.zeros(3), np.zeros((3, 3, 3))
    )
    for _ in range(2):
        dataset = FrameDataset(water, pre_transform=RadiusGraph(2.0), cache=tmp_path)
        assert file_behind(dataset[2].edge_index).startswith(str(tmp_path))


def test_frames_joined_in_files_are_those_joined_in_memory(tmp_path):
    (one, begins), (other, same) = joined(parts(2), tmp_path), joined(parts(2))
    for name, value in other.to_dict().items():
        assert torch.equal(one[name], value)
        assert one[name].stride() == value.stride()
        assert torch.equal(begins[name], same[name])


def test_nothing_is_joined_to_nothing(tmp_path):
    assert joined([]) is None
    data, _ = joined([(Data(pos=torch.zeros(0, 3)), {"pos": torch.zeros(2, dtype=torch.int64)})], tmp_path)
    assert data.pos.shape == (0, 3)


def test_what_is_written_to_kept_frames_stays_out_of_the_file(tmp_path):
    frame_cache.save(tmp_path / "frames.pt", FRAME, None, 1)
    frame_cache.load(tmp_path / "frames.pt")[0].pos += 1.0
    assert frame_cache.load(tmp_path / "frames.pt")[0].pos.tolist() == [[0.0, 0.0, 0.0]]


def test_a_full_disk_is_an_error_while_frames_are_joined(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        joined(parts(1), tmp_path)
