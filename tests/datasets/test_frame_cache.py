import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from datasets import frame_cache
from datasets.joined import Part, joined

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


def test_nothing_in_a_cache_is_executed(tmp_path):
    class WritesAFile:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    torch.save({"data": FRAME.to_dict(), "slices": WritesAFile(), "num_frames_read": 1}, tmp_path / "frames.pt")
    with pytest.raises(ValueError, match="the cache file is broken"):
        frame_cache.load(tmp_path / "frames.pt")
    assert not (tmp_path / "written").exists()


# === larger than the memory ===

MEGABYTE = 2**20


def own_memory() -> int:
    """Bytes that this process alone has, without files that it has mapped."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


def parts(count: int) -> Iterator[Part]:
    """Sixteen frames in a part of 1.75 MB, of positions and edges: these are joined along their second dimension."""
    for number in range(count):
        pos = torch.full((16 * 2**11, 3), float(number), dtype=torch.float64)
        edges = torch.full((2, 16 * 2**12), number)
        begins = torch.arange(17)
        yield Data(pos=pos, edge_index=edges), {"pos": 2**11 * begins, "edge_index": 2**12 * begins}


def test_frames_are_joined_saved_and_read_in_little_memory(tmp_path):
    before, most = own_memory(), 0

    def watched():
        nonlocal most
        for part in parts(128):
            yield part
            most = max(most, own_memory() - before)

    data, slices = joined(watched(), tmp_path)
    assert data.pos.nbytes + data.edge_index.nbytes == 224 * MEGABYTE
    most = max(most, own_memory() - before)
    path = tmp_path / "frames.pt"
    frame_cache.save(path, data, slices, 16 * 128)
    del data
    kept, _, _ = frame_cache.load(path)
    sums = kept.pos.sum().item(), kept.edge_index.sum().item()
    assert sums == (16 * 2**11 * 3 * 8128, 2 * 16 * 2**12 * 8128)
    assert max(most, own_memory() - before) < 50 * MEGABYTE
    assert list(tmp_path.iterdir()) == [path]


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
