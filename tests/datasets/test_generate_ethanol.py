"""The generator's bookkeeping; the chemistry is checked on what it made, in test_ethanol.py."""

import numpy as np
import pytest

from datasets import generate_ethanol


def test_every_frame_of_every_trajectory_once():
    frames = generate_ethanol.shuffled_frames()
    assert len(set(frames)) == len(frames) == generate_ethanol.FRAMES
    assert {trajectory for trajectory, _ in frames[:100]} == set(range(generate_ethanol.TRAJECTORIES))


def test_a_killed_write_leaves_no_file(tmp_path, monkeypatch):
    def killed(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", killed)
    with pytest.raises(KeyboardInterrupt):
        generate_ethanol.write_whole(tmp_path / "0000.npz", energy=1.0)
    assert not (tmp_path / "0000.npz").exists()


def test_only_what_is_missing_runs_and_a_failure_costs_one(tmp_path, capsys):
    done, missing, failing = tmp_path / "0.npz", tmp_path / "1.npz", tmp_path / "no folder" / "2.npz"
    done.write_text("kept")
    tasks = [(generate_ethanol.write_whole, (path,)) for path in (done, failing, missing)]
    generate_ethanol.run_missing(tasks, workers=1)
    assert done.read_text() == "kept"
    assert missing.exists()
    printed = capsys.readouterr().out
    assert "1 done, 2 to do" in printed
    assert "no folder/2.npz: " in printed


def test_assemble_takes_what_is_there_in_shuffled_order(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_ethanol, "DESTINATION", tmp_path / "set.npz")
    for frame in (7, 2):
        generate_ethanol.write_whole(
            tmp_path / f"{frame:04}.npz",
            numbers=np.array([8, 1, 1]),
            positions=np.full((3, 3), frame / 10),
            energy=-100.0 - frame,
            forces=np.full((3, 3), 0.123456789123),
        )
    generate_ethanol.assemble(tmp_path, tmp_path, workers=1)
    with np.load(tmp_path / "set.npz") as assembled:
        assert assembled["numbers"].tolist() == [8, 1, 1]
        assert assembled["positions"][:, 0, 0].tolist() == [0.2, 0.7]
        assert assembled["energies"].tolist() == [-102.0, -107.0]
        assert assembled["forces"][0, 0, 0] == 0.12345679
        order = generate_ethanol.shuffled_frames()
        assert assembled["trajectory"].tolist() == [order[2][0], order[7][0]]
