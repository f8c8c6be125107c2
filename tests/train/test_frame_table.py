"""Frames in columns: the same as frames one by one, and little memory however many there are."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from torch_geometric.data import Batch

from train import columns, frame_checks, frame_table
from train.data import FrameDataModule, labels
from train.frames import FramesOptions, read_splits
from train.heads import levels_of, statistics_of
from train.padded_frames import PaddedFrames
from train.statistics import collect_statistics

CUTOFF = 3.0
NAMES = ("H2O", "NH3", "CH4")  # of which nobody can tell the energies of all four elements


def molecules(count: int, seed: int = 0) -> list[Atoms]:
    random, made = np.random.default_rng(seed), []
    for number in range(count):
        atoms = molecule(NAMES[number % 3])
        atoms.rattle(0.05, rng=random)
        forces = random.normal(size=(len(atoms), 3))
        energy = -5.0 * len(atoms) + random.normal()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces - forces.mean(axis=0))
        atoms.info |= {"config_type": NAMES[number % 3], "config_forces_weight": float(number % 4)}
        made.append(atoms)
    made[4].calc.results.pop("energy")
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "molecules.xyz"
    write(path, molecules(40))
    return path


@pytest.fixture
def from_files(file, tmp_path, monkeypatch):
    """Of a cache, as if there were many frames."""
    monkeypatch.setattr(frame_table, "FEW_FRAMES", 0)
    for module in (frame_table, columns):
        monkeypatch.setattr(module, "BLOCK", 7)
    return read_splits(FramesOptions(str(file), cache=tmp_path / "cache"), CUTOFF)


@pytest.fixture
def in_memory(file):
    return read_splits(FramesOptions(str(file)), CUTOFF)


def assert_alike(batch, other, names) -> None:
    for name in names:
        torch.testing.assert_close(batch[name], other[name], rtol=0, atol=0, equal_nan=True)


def test_statistics_of_blocks_are_those_of_frames(in_memory, from_files):
    """Also where compositions leave energies of elements open: the solution of least norm."""
    listed, blockwise = collect_statistics(list(in_memory.train)), collect_statistics(from_files.train)
    numbers = torch.cat([frame.z for frame in in_memory.train]).numpy()
    assert len(np.unique(numbers)) == 4
    np.testing.assert_allclose(blockwise.numbers(), listed.numbers(), rtol=1e-10)
    known = [frame for frame in in_memory.train if not frame.energy.isnan().any()]
    counts = np.array([[(frame.z == z).sum().item() for z in (1, 6, 7, 8)] for frame in known])
    expected, *_ = np.linalg.lstsq(counts.astype(float), np.array([frame.energy.item() for frame in known]))
    np.testing.assert_allclose(blockwise.shift, expected, rtol=1e-10)
    forces = np.concatenate([frame.forces.numpy() for frame in in_memory.train])
    assert blockwise.scale == pytest.approx(np.sqrt(np.nanmean(forces**2)), rel=1e-12)


def test_frames_of_a_cache_are_those_in_memory(in_memory, from_files):
    assert in_memory.sizes() == from_files.sizes() == {"train": 32, "validation": 4, "test": 4}
    for frames, others in zip(in_memory.parts().values(), from_files.parts().values(), strict=True):
        for frame, other in zip(frames, others, strict=True):
            assert set(frame.keys()) == set(other.keys())
            assert (frame.place, frame.config_type) == (other.place, other.config_type)
            tensors = [name for name, value in frame.to_dict().items() if torch.is_tensor(value)]
            assert_alike(frame, other, tensors)
    first, second = labels(in_memory.train), labels(from_files.train)
    for name in ("energy", "forces", "numbers", "num_atoms", "config_types"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_labels_of_weight_zero_are_missing(from_files):
    without = {int(frame.place.split()[-1]) for frame in from_files.train if bool(frame.forces.isnan().all())}
    assert without
    assert all(number % 4 == 0 for number in without)
    assert from_files.train.present("forces").sum() == len(from_files.train) - len(without)


def test_batches_are_those_of_pyg(from_files):
    (batch,) = FrameDataModule(from_files, 4).predict_dataloader()[1]
    expected = Batch.from_data_list(list(from_files.test))
    assert batch.num_graphs == 4
    names = [name for name, value in expected.to_dict().items() if torch.is_tensor(value)]
    assert {"edge_index", "batch", "ptr", "weight", "forces"} <= set(names)
    assert_alike(batch, expected, names)


def test_cells_are_completed_in_a_batch_as_in_each_frame(tmp_path):
    """Of molecules, wires, slabs, slabs whose third vector lies in their plane, and crystals."""
    vectors, made = np.array([[9.0, 2.0, 1.0], [1.0, 8.0, 3.0], [2.0, 3.0, 10.0]]), molecules(40)
    plane = np.stack([*vectors[:2], vectors[0] + vectors[1]])
    for number, atoms in enumerate(made):
        cell = (vectors[:0], vectors[:1], vectors[:2], plane, vectors)[number % 5]
        atoms.cell[: len(cell)] = cell
        atoms.pbc = np.arange(3) < (0, 1, 2, 2, 3)[number % 5]
    write(tmp_path / "cells.xyz", made)
    frames = read_splits(FramesOptions(str(tmp_path / "cells.xyz")), CUTOFF).train
    numbers = [int(frame.place.split()[-1]) for frame in frames]
    assert {number % 5 for number in numbers} == set(range(5))
    found = frames.values_of("cell")
    np.testing.assert_array_equal(found, np.stack([made[number].cell.complete() for number in numbers]))
    np.testing.assert_array_equal(found, torch.cat([frame.cell for frame in frames]))


def test_objects_are_not_kept_of_many_frames(in_memory, from_files):
    assert in_memory.train[0] is in_memory.train[0]
    assert from_files.train[0] is not from_files.train[0]


def test_frames_in_memory_are_padded_without_objects_of_each(file):
    splits = read_splits(FramesOptions(str(file)), CUTOFF)
    PaddedFrames(splits.train, CUTOFF, "cpu")
    assert len(splits.train.columns._kept) == 1


@pytest.mark.slow
def test_a_frame_of_a_cache_takes_little_memory(tmp_path, monkeypatch):
    """Objects of each would take 11 kB. Of tensors, which tracemalloc does not see, there are no more than before."""
    monkeypatch.setattr(frame_table, "FEW_FRAMES", 0)
    for module, name in ((frame_table, "BLOCK"), (columns, "BLOCK"), (frame_checks, "LOOKED_AT")):
        monkeypatch.setattr(module, name, 50)

    def peak_and_tensors(count: int) -> tuple[int, int]:
        gc.collect()
        tracemalloc.start()
        splits = read_splits(FramesOptions(str(tmp_path / f"{count}.xyz"), cache=tmp_path / "cache"), CUTOFF)
        statistics_of(levels_of(splits, None))
        for _ in FrameDataModule(splits, 10).train_dataloader():
            pass
        gc.collect()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, sum(isinstance(found, torch.Tensor) for found in gc.get_objects())

    for count in (100, 400):
        write(tmp_path / f"{count}.xyz", molecules(count))
    for limit in (1000, 100):  # bytes a frame: while the cache is made, and of the cache
        (few, tensors), (many, more_tensors) = peak_and_tensors(100), peak_and_tensors(400)
        assert (many - few) / 300 < limit
        assert more_tensors == tensors
