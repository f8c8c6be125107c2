"""Energies, forces and stresses of molecules and crystals of any elements, from any file that ASE reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch

from datasets import AtomsFile
from pyg_cgconv.potential import RadiusGraph
from train.committee import CommitteeOptions, train_committee
from train.data import Splits, made_alike
from train.isolated_atoms import IsolatedAtom, is_isolated
from train.options import FitOptions, ModelOptions, RunOptions
from train.run import open_run_folder, train
from train.source_frames import SourceFrame, warn_of_duplicates

Frame = TypeVar("Frame")
DEFAULT_PRESET = "small"


@dataclass(frozen=True)
class FramesOptions(CommitteeOptions):
    """Data: which files, and what they hold. Energies are in eV, lengths in Angstrom.

    Args:
        train_file: training frames, such as train.xyz; or several files, such as [bulk.xyz, surfaces.xyz]. A file may
            have stresses and another none, but all frames of a file have the same labels. In this and the other files,
            a frame of one atom without neighbours within the cutoff gives the energy of its element, and is neither
            trained on nor tested; it needs no forces and no stress.
        val_file: validation frames (default: val_size of the training frames, drawn at random).
        test_file: test frames (default: test_size of the training frames, drawn at random).
        val_size: without val_file, a number of frames, or, below 1, a part of the training frames; isolated atoms do
            not count.
        test_size: the same for test frames.
        split_seed: of the random draw.
        labels: what is read of each frame, such as [energy] or [energy, forces] (default: energy and forces, and the
            stress if a file has it).
        energy_key: name of the total energy, such as REF_energy (default: what ASE takes for the energy), eV. Where
            labels of two names differ, a key has to say which is meant; so it is for forces and stress.
        forces_key: name of the forces, eV/Angstrom.
        stress_key: name of the stress, eV/Angstrom^3, positive where the structure wants to shrink.
        virial_key: name of the virial, eV, of which the stress is made, as -virial / volume (default: virial or
            virials).
        format: ASE's name of the format, for files whose name does not tell it.
        cache: folder in which frames and neighbour lists are kept for the next time (default: nowhere).
    """

    train_file: str | list[str]
    val_file: str | list[str] | None = None
    test_file: str | list[str] | None = None
    val_size: float = 0.1
    test_size: float = 0.1
    split_seed: int = 0
    labels: list[Literal["energy", "forces", "stress"]] | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    format: str | None = None
    cache: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("val_size", "test_size"):
            size = getattr(self, name)
            if size <= 0 or (size > 1 and size != int(size)):
                raise ValueError(f"{name}={size}: expected a number of frames, or a part of them between 0 and 1")
        if self.labels is not None and "energy" not in self.labels:
            raise ValueError(f"labels={self.labels}: expected energy among them, which a potential is made of")


OPTIONS = (FramesOptions, ModelOptions, FitOptions, RunOptions)


def run(data: FramesOptions, model: ModelOptions, fit: FitOptions, run: RunOptions, *, config: str) -> dict:
    """Reads the files, trains, and returns what is written to ``metrics.json``."""
    splits = read_splits(data, model.cutoff, run.num_workers)
    name = paths(data.train_file)[0].stem
    if data.trains_all:
        return train_committee(splits, data, model, fit, run, folder_name=name, config=config)
    folder = open_run_folder(run, "frames", name, config)
    return train(splits, folder, model, fit, data.seeded(run))


def read_splits(options: FramesOptions, cutoff: float, num_workers: int = 0) -> Splits:
    """The frames of all files with their neighbour lists, made by ``num_workers`` processes if it is not 0.

    Isolated atoms are taken out before the others are divided.

    Raises:
        ValueError: a file cannot be read, or too few frames are left.
    """
    chosen = {name: getattr(options, name) for name in ("train_file", "val_file", "test_file")}
    read = {name: read_files(options, files, cutoff, num_workers) for name, files in chosen.items() if files}
    isolated = [
        IsolatedAtom.of(source.frame, source.place)
        for sources in read.values()
        for source in sources
        if is_isolated(source.frame)
    ]
    read = {name: without_isolated(name, sources) for name, sources in read.items()}
    frames = read["train_file"]
    test = read.get("test_file", frame_count(options.test_size, frames))
    validation = read.get("val_file", frame_count(options.val_size, frames))
    parts = divide(frames, validation, test, options.split_seed)
    warn_of_duplicates(*parts)
    training, validated, tested = ([source.frame for source in part] for part in parts)
    splits = Splits(name_of(options), training, validated, tested, isolated)
    made_alike([*splits.train, *splits.validation, *splits.test])
    return options.frames_of_member(splits)


def read_files(options: FramesOptions, files: str | list[str], cutoff: float, num_workers: int) -> list[SourceFrame]:
    return [
        SourceFrame(frame, file, number)
        for file in paths(files)
        for number, frame in enumerate(read_file(options, file, cutoff, num_workers))
    ]


def read_file(options: FramesOptions, file: Path, cutoff: float, num_workers: int) -> AtomsFile:
    return AtomsFile(
        file,
        options.cache,
        options.labels,
        options.energy_key,
        options.forces_key,
        options.stress_key,
        options.virial_key,
        options.format,
        pre_transform=RadiusGraph(cutoff),
        num_workers=num_workers,
    )


def without_isolated(option: str, sources: list[SourceFrame]) -> list[SourceFrame]:
    """Those of ``sources``, the frames of ``option``, that are no isolated atoms.

    Raises:
        ValueError: there are none.
    """
    kept = [source for source in sources if not is_isolated(source.frame)]
    if not kept:
        files = ", ".join(dict.fromkeys(str(source.file) for source in sources))
        raise ValueError(
            f"{option}: {files} holds {len(sources)} isolated atoms and nothing else; they give energies of elements "
            "and are not trained on, validated or tested: add frames of atoms that see others within the cutoff"
        )
    return kept


def divide(
    frames: list[Frame], validation: list[Frame] | int, test: list[Frame] | int, seed: int
) -> tuple[list[Frame], list[Frame], list[Frame]]:
    """Training, validation and test frames; of the latter two, numbers are drawn at random from ``frames``.

    The test frames do not depend on how many are drawn for validation.

    Raises:
        ValueError: no training frame is left.
    """
    held_out = [part for part in (test, validation) if isinstance(part, int)]
    if sum(held_out) >= len(frames):
        raise ValueError(
            f"train_file: {len(frames)} frames, of which {sum(held_out)} are to be held out for validation and test: "
            "give more frames, smaller val_size and test_size, or val_file and test_file"
        )
    shuffled = [frames[i] for i in torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).tolist()]
    test_frames, shuffled = _drawn(test, shuffled)
    validation_frames, shuffled = _drawn(validation, shuffled)
    return shuffled, validation_frames, test_frames


def _drawn(wanted: list[Frame] | int, shuffled: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """The frames that are wanted, or so many of those that are ``shuffled``; and what is left of these."""
    if isinstance(wanted, int):
        return shuffled[:wanted], shuffled[wanted:]
    return wanted, shuffled


def frame_count(size: float, frames: list) -> int:
    """``size`` as a number of frames, at least one; below 1 it is a part of ``frames``."""
    return int(size) if size >= 1 else max(1, round(size * len(frames)))


def paths(files: str | list[str]) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str) else files)]


def name_of(options: FramesOptions) -> str:
    return ", ".join(path.name for path in paths(options.train_file))
