"""Energies, forces and stresses of molecules and crystals of any elements, from any file that ASE reads."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datasets import AtomsFile
from pyg_cgconv.potential import RadiusGraph
from train.columns import heads_of, num_atoms, num_edges, with_label
from train.committee import CommitteeOptions, train_committee
from train.data import Splits, check_label_names
from train.division import divide, drawn, frame_count
from train.frame_checks import warn_of_unlikely_frames
from train.frame_table import FrameColumns, FrameTable
from train.frame_weights import drop_labels_without_weight, weights_of
from train.heads import Files, files_of, give_heads, head_names, weigh_heads
from train.isolated_atoms import IsolatedAtom
from train.loss import QUANTITIES
from train.options import FitOptions, ModelOptions, RunOptions, TuningOptions, require_positive
from train.preset_choice import AUTO, amount_in, choose
from train.run import open_run_folder, train
from train.source_frames import TableSources, warn_of_duplicates

DEFAULT_PRESET = AUTO
# Of the frames of replay_file, to be validated, and as many to be tested.
PART_OF_OLD_FRAMES = 0.1
FILE_OPTIONS = ("train_file", "val_file", "test_file", "replay_file")


@dataclass(frozen=True)
class FramesOptions(CommitteeOptions):
    """Data: which files, and what they hold. Energies are in eV, lengths in Angstrom.

    Args:
        train_file: training frames, such as train.xyz; or several files, such as [bulk.xyz, surfaces.xyz]. Frames may
            have different labels: what one lacks is not learned of it. In this and the other files, a frame of one atom
            without neighbours within the cutoff gives the energy of its element, and is neither trained on nor tested;
            it needs no forces and no stress. Files of several levels of theory are named by their heads, such as
            {pbe: pbe.xyz, r2scan: [a.xyz, b.xyz]}; so are those of val_file and test_file.
        val_file: validation frames (default: val_size of the training frames, drawn at random).
        test_file: test frames (default: test_size of the training frames, drawn at random).
        replay_file: old frames, which a fine-tuning shall not forget, with energies of the same level of theory as the
            new ones. Tenths of them are validated with the others, and tested by themselves; the rest is trained on.
        replay_weight: factor on the loss of old frames.
        replay_size: number of old frames, drawn at random (default: all).
        heads: names of levels of theory, such as [pbe, r2scan], of which each frame in the files has one as head. The
            potential has a readout and energies of atoms for each. Not needed where train_file has files by head.
        head_weights: factors on the loss of frames by their head, such as {pbe: 0.1}; others have 1.
        val_size: without val_file, a number of frames, or, below 1, a part of the training frames; isolated atoms do
            not count. With heads, so many of each.
        test_size: the same for test frames.
        split_seed: of the random draw.
        labels: what is learned of each frame: energy, forces, stress, energies (of atoms), charges (of atoms) and
            dipole, such as [energy, forces, dipole] (default: energy and forces, and the stress if a file has it).
            Charges and dipoles may be learned without an energy.
        energy_key: name of the total energy, such as REF_energy (default: what ASE takes for the energy), eV. Where
            labels of two names differ, a key has to say which is meant; so it is for forces and stress.
        forces_key: name of the forces, eV/Angstrom.
        stress_key: name of the stress, eV/Angstrom^3, positive where the structure wants to shrink.
        virial_key: name of the virial, eV, of which the stress is made, as -virial / volume (default: virial or
            virials).
        energies_key: name of the energies of atoms, eV.
        charges_key: name of the charges of atoms, e, which sum to the total charge.
        dipole_key: name of the dipole of a molecule, e Angstrom, about the centre of mass if it is charged.
        charge_key: name of the total charge of a frame, e; 0 if it is not there.
        config_type_weights: factors on the loss of frames by their config_type, such as {bulk: 1.0, surface: 5.0};
            others, and in all options frames without one, which are called Default, have 1. It multiplies
            config_weight, config_energy_weight, config_forces_weight, config_stress_weight ... of a frame in the files.
            A weight of 0 leaves labels out.
        format: ASE's name of the format, for files whose name does not tell it.
        cache: folder in which frames and neighbour lists are kept for the next time (default: nowhere).
    """

    train_file: Files
    val_file: Files | None = None
    test_file: Files | None = None
    heads: list[str] | None = None
    head_weights: dict[str, float] | None = None
    replay_file: str | list[str] | None = None
    replay_weight: float = 1.0
    replay_size: int | None = None
    val_size: float = 0.1
    test_size: float = 0.1
    split_seed: int = 0
    labels: list[Literal["energy", "forces", "stress", "energies", "charges", "dipole"]] | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    energies_key: str | None = None
    charges_key: str | None = None
    dipole_key: str | None = None
    charge_key: str = "charge"
    config_type_weights: dict[str, float] | None = None
    format: str | None = None
    cache: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        for name in ("val_size", "test_size"):
            size = getattr(self, name)
            if size <= 0 or (size > 1 and size != int(size)):
                raise ValueError(f"{name}={size}: expected a number of frames, or a part of them between 0 and 1")
        require_positive(self, "replay_weight", "replay_size")
        if self.replay_file is None and (self.replay_weight != 1.0 or self.replay_size is not None):
            raise ValueError("replay_weight and replay_size: there are no old frames, name their file by replay_file")
        if self.labels is not None:
            check_label_names(self.labels)
        heads = self.head_names
        if heads and self.replay_file is not None:
            raise ValueError(
                "replay_file: with heads, old frames are those of a head: give their file in train_file, such as "
                f"--train_file '{{{heads[0]}: new.xyz, old: old.xyz}}', and their weight by head_weights"
            )
        if unknown := set(self.head_weights or ()) - set(heads):
            raise ValueError(f"head_weights: {', '.join(sorted(unknown))}: the heads are {', '.join(heads) or 'none'}")
        for option in ("config_type_weights", "head_weights"):
            for name, weight in (getattr(self, option) or {}).items():
                if not 0 <= weight < math.inf:
                    raise ValueError(f"{option}: {name}: {weight}, expected a number of 0 or more")

    @property
    def head_names(self) -> tuple[str, ...]:
        """Levels of theory, if there are several."""
        return head_names(self.heads, {name: getattr(self, name) for name in FILE_OPTIONS})


OPTIONS = (FramesOptions, ModelOptions, FitOptions, TuningOptions, RunOptions)


def run(
    data: FramesOptions, model: ModelOptions, fit: FitOptions, tuning: TuningOptions, run: RunOptions, *, config: str
) -> dict:
    """Reads the files, trains, and returns what is written to ``metrics.json``."""
    splits = read_splits(data, model.cutoff, run.num_workers)
    name = paths(data.train_file)[0].stem
    if data.trains_all:
        return train_committee(splits, data, model, fit, tuning, run, folder_name=name, config=config)
    folder = open_run_folder(run, "frames", name, config)
    return train(splits, folder, model, fit, data.seeded(run), tuning)


def choose_preset(data: FramesOptions, run: RunOptions) -> tuple[str, str]:
    """The preset for these files on this machine, and why it is this one."""
    amount = amount_in(paths(data.train_file), data.format) if run.accelerator == "gpu" else None
    return choose(amount)


def read_splits(options: FramesOptions, cutoff: float, num_workers: int = 0) -> Splits:
    """The frames of all files with their neighbour lists, made by ``num_workers`` processes if it is not 0.

    Isolated atoms are taken out before the others are divided.

    Raises:
        ValueError: a file cannot be read, or too few frames are left.
    """
    read = read_files(options, cutoff, num_workers)
    columns = next(iter(read.values())).columns
    weight = weights_of(columns, options.config_type_weights)
    weigh_heads(columns, weight, options.head_names, options.head_weights)
    if "replay_file" in read:
        weight[torch.from_numpy(read["replay_file"].rows)] *= options.replay_weight
    isolated = [atom for frames in read.values() for atom in isolated_in(frames)]
    read = {name: without_isolated(name, frames) for name, frames in read.items()}
    drop_labels_without_weight(columns, weight, np.concatenate([frames.rows for frames in read.values()]))
    by_head = [divide_head(read, head, options) for head in range(max(1, len(options.head_names)))]
    old = divide_old(read, options)
    for of_head in by_head:  # levels of theory by themselves, as their energies differ
        warn_of_duplicates(*(TableSources(part + old_part) for part, old_part in zip(of_head, old, strict=True)))
        warn_of_unlikely_frames(TableSources(sum(of_head[1:], of_head[0])))
    warn_of_unlikely_frames(TableSources(sum(old[1:], old[0])))  # they may be of other structures
    train, validation, test = (sum(parts[1:], parts[0]) for parts in zip(*by_head, strict=True))
    old_train, old_validation, replay = old
    splits = Splits(
        name_of(options), train + old_train, validation + old_validation, test, isolated, replay, options.head_names
    )
    if "replay_file" in read:
        replayed = torch.zeros(columns.count, dtype=torch.bool)
        replayed[torch.from_numpy(read["replay_file"].rows)] = True
        columns.given["replayed"] = replayed
    columns.complete_cells(np.concatenate([frames.rows for frames in read.values()]))
    return options.frames_of_member(splits)


Division = tuple[FrameTable, FrameTable, FrameTable]
"""Training, validation and test frames."""


def divide_head(read: dict[str, FrameTable], head: int, options: FramesOptions) -> Division:
    """The frames of one level of theory; sizes are those of each."""
    own = {option: frames[heads_of(frames) == head] for option, frames in read.items()}
    frames = own["train_file"]
    if not len(frames):
        raise ValueError(
            f"train_file: no frame is of head {options.head_names[head]}; give some, or leave it out of heads"
        )
    test = own.get("test_file", frame_count(options.test_size, frames))
    validation = own.get("val_file", frame_count(options.val_size, frames))
    of_head = f" of head {options.head_names[head]}" if options.head_names else ""
    if isinstance(validation, FrameTable) and not len(validation):
        raise ValueError(
            f"val_file: no frame is{of_head}, so nothing would show how well it is learned; give some of each head, or "
            "leave val_file out, which takes val_size of the training frames of each"
        )
    return divide(frames, validation, test, options.split_seed, labels_in(frames), option=f"train_file{of_head}")


def divide_old(read: dict[str, FrameTable], options: FramesOptions) -> Division:
    """The frames of ``replay_file``."""
    if "replay_file" not in read:
        none = read["train_file"][:0]
        return none, none, none
    frames = read["replay_file"]
    if options.replay_size is not None:
        if options.replay_size > len(frames):
            raise ValueError(f"replay_size={options.replay_size}: replay_file has {len(frames)} frames, ask for fewer")
        frames = drawn(frames, options.replay_size, options.split_seed)
    count = frame_count(PART_OF_OLD_FRAMES, frames)
    return divide(frames, count, count, options.split_seed, labels_in(frames), option="replay_file")


def read_files(options: FramesOptions, cutoff: float, num_workers: int) -> dict[str, FrameTable]:
    """The frames of all files, by the option that names them. Files are read together: a label may be in one of them.

    Raises:
        ValueError: a file cannot be read, or no frame has one of the labels.
    """
    chosen = {name: files_of(files) for name in FILE_OPTIONS if (files := getattr(options, name))}
    files = [file for of_option in chosen.values() for _, file in of_option]
    dataset = AtomsFile(
        files,
        options.cache,
        options.labels,
        options.energy_key,
        options.forces_key,
        options.stress_key,
        options.virial_key,
        options.format,
        pre_transform=RadiusGraph(cutoff),
        num_workers=num_workers,
        details=True,
        energies_key=options.energies_key,
        charges_key=options.charges_key,
        dipole_key=options.dipole_key,
        charge_key=options.charge_key,
    )
    columns = FrameColumns(dataset, files)
    give_heads(columns, [head for of_option in chosen.values() for head, _ in of_option], options.head_names)
    owners = np.array([number for number, name in enumerate(chosen) for _ in chosen[name]])
    owner = owners[columns.values["source"][:, 0].numpy()]
    return {name: FrameTable(columns, np.flatnonzero(owner == number)) for number, name in enumerate(chosen)}


def isolated_in(frames: FrameTable) -> list[IsolatedAtom]:
    """The isolated atoms among ``frames``; none where there are no energies."""
    if "energy" not in frames.columns.names():
        return []
    return [IsolatedAtom.of(frame, frame.place) for frame in frames[are_isolated(frames)]]


def without_isolated(option: str, frames: FrameTable) -> FrameTable:
    """Those of ``frames``, which are of ``option``, that are no isolated atoms.

    Raises:
        ValueError: there are none.
    """
    kept = frames[~are_isolated(frames)]
    if not len(kept):
        files = ", ".join(dict.fromkeys(str(source.file) for source in TableSources(frames)))
        raise ValueError(
            f"{option}: {files} holds {len(frames)} isolated atoms and nothing else; they give energies of elements "
            "and are not trained on, validated or tested: add frames of atoms that see others within the cutoff"
        )
    return kept


def are_isolated(frames: FrameTable) -> np.ndarray:
    """Whether each frame (frames,) holds one atom that sees no other, nor its own periodic images."""
    return (num_atoms(frames) == 1) & (num_edges(frames) == 0)


def labels_in(frames: FrameTable) -> np.ndarray:
    """Whether each frame has each label, (frames, labels), in the order in which they are looked after."""
    return np.stack([with_label(frames, name) for name in sorted(QUANTITIES)], axis=1)


def paths(files: Files) -> list[Path]:
    return [path for _, path in files_of(files)]


def name_of(options: FramesOptions) -> str:
    return ", ".join(path.name for path in paths(options.train_file))
