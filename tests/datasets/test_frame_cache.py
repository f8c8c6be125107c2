import pytest
import torch
from torch_geometric.data import Data

from datasets import frame_cache

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
