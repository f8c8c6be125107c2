"""Heads of a training: which level of theory each frame is of, and what is known there of the energies of atoms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from train.columns import elements, num_atoms, num_edges
from train.data import Splits
from train.frame_table import FrameColumns
from train.isolated_atoms import describe_isolated, isolated_energies
from train.statistics import Statistics, collect_statistics, elements_without_energy, label_units

Files = str | list[str] | dict[str, str | list[str]]
"""Files by the names of their heads, or such as have no heads or name those of their frames."""


def files_of(given: Files) -> list[tuple[str | None, Path]]:
    """Each file, and the head that it is given for."""
    if isinstance(given, dict):
        return [(head, path) for head, files in given.items() for _, path in files_of(files)]
    return [(None, Path(file)) for file in ([given] if isinstance(given, str) else given)]


def head_names(heads: Sequence[str] | None, files: Mapping[str, Files | None]) -> tuple[str, ...]:
    """The heads of a training; none of one without.

    Args:
        heads: what a user names.
        files: by the options that name them; those of ``train_file`` name heads, too.

    Raises:
        ValueError: names are given twice, or contradict each other.
    """
    by_head = files["train_file"]
    known = tuple(heads if heads is not None else by_head if isinstance(by_head, dict) else ())
    if len(set(known)) < len(known) or (heads is not None and not heads):
        raise ValueError(f"heads={list(known)}: expected different names, such as [pbe, r2scan]")
    for option, given in files.items():
        unknown = [head for head in given if head not in known] if isinstance(given, dict) else []
        if unknown:
            raise ValueError(
                f"{option}: files of {', '.join(unknown)}, but the heads are {', '.join(known) or 'none'}: name the "
                "head of each file in train_file, or all of them by heads"
            )
    return known


def give_heads(columns: FrameColumns, of_files: Sequence[str | None], heads: Sequence[str]) -> None:
    """Gives each frame the number of its ``head`` (1,): that of its file, or that which it names itself.

    Args:
        columns: frames with ``head_name``, which they lose.
        of_files: the head of each file, if there is one.
        heads: names; if there are none, frames get no head.

    Raises:
        ValueError: a frame names a head that is none of them.
    """
    codes, named = columns.text_codes("head_name")
    columns.left_out.add("head_name")
    if not heads:
        if len(named) > 1:
            rank_zero_warn(
                f"head: frames name {', '.join(sorted(named))}, but all are learned as one level of theory: give "
                f"--heads [{','.join(sorted(named))}] to learn each by itself"
            )
        return
    file = columns.values["source"][:, 0].numpy()
    of_file = np.array([-1 if head is None else list(heads).index(head) for head in of_files])[file]
    of_name = np.array([list(heads).index(name) if name in heads else -1 for name in named])[codes]
    head = np.where(of_file < 0, of_name, of_file)
    if len(odd := np.flatnonzero(head < 0)):
        raise ValueError(
            f"{columns.place(int(odd[0]))} has head={named[codes[odd[0]]]!r}, expected one of {', '.join(heads)}: name "
            "it in the file, or give the file by its head, such as --train_file '{pbe: a.xyz, r2scan: b.xyz}'"
        )
    columns.given["head"] = torch.from_numpy(head)


def weigh_heads(
    columns: FrameColumns, weight: Tensor, heads: Sequence[str], weights: Mapping[str, float] | None
) -> None:
    """Multiplies the ``weight`` (rows, labels) of each frame by that of its head, in place."""
    if weights:
        factors = torch.tensor([weights.get(head, 1.0) for head in heads], dtype=weight.dtype)
        weight *= factors[columns.given["head"]][:, None]


@dataclass(frozen=True)
class Level:
    """One level of theory: the frames of a head, or all of a training without heads.

    Args:
        head: its name, or None.
        splits: its frames.
        given: energies of isolated atoms that a user gave, eV, by chemical symbol; None to have them fitted.
        isolated: those of isolated atoms in the files.
    """

    head: str | None
    splits: Splits
    given: Mapping[str, float] | None
    isolated: Mapping[str, float]

    @property
    def known(self) -> dict[str, float]:
        return dict(self.isolated) | dict(self.given or {})

    def describe(self, species: Sequence[int]) -> str:
        """Where energies of atoms come from, for the log; nothing if all of them are fitted."""
        lines, given = [], self.given or {}
        if self.splits.isolated:
            learned = [chemical_symbols[number] for number in species]
            lines.append(describe_isolated(self.splits.isolated, given, learned))
        if unknown := elements_without_energy(self.splits.train, self.known, species if self.head else None):
            lines.append(
                f"energies of atoms: none for {', '.join(unknown)}, no training frame tells them: 0 eV is taken"
            )
        return "\n".join(f"head {self.head}: {line}" if self.head else line for line in lines)


def levels_of(splits: Splits, atom_energies: Mapping | None) -> list[Level]:
    """Each level of theory in ``splits``, one if there are no heads.

    Args:
        atom_energies: energies of isolated atoms, eV, by chemical symbol; with heads, such a table by head.

    Raises:
        ValueError: the table is not of this form, or isolated atoms of a head disagree.
    """
    tables = _tables(splits.heads, atom_energies)
    parts = splits.by_head()
    names: Sequence[str | None] = splits.heads or [None]
    return [
        Level(head, part, given, isolated_energies(part.isolated, given or {}))
        for head, part, given in zip(names, parts, tables, strict=True)
    ]


def _tables(heads: Sequence[str], atom_energies: Mapping | None) -> list[Mapping[str, float] | None]:
    if atom_energies is None:
        return [None] * max(1, len(heads))
    nested = [isinstance(energies, Mapping) for energies in atom_energies.values()]
    if not heads and not any(nested):
        return [atom_energies]
    if not heads or not all(nested) or not set(atom_energies) <= set(heads):
        expected = f"a table for each of the heads {', '.join(heads)}" if heads else "one table, as there are no heads"
        raise ValueError(f"atom_energies: expected {expected}, got {dict(atom_energies)}")
    return [atom_energies.get(head) for head in heads]


def statistics_of(levels: Sequence[Level]) -> Statistics:
    """Of the training frames; with heads, energies of atoms and scales of each.

    A head whose frames have neither energies nor forces gets the mean scale of the others.
    """
    parts = [level.splits.train for level in levels]
    species = np.unique(np.concatenate([elements(frames) for frames in parts]))
    each = [collect_statistics(level.splits.train, level.given, level.isolated, species) for level in levels]
    if levels[0].head is None:
        return each[0]
    scales = np.array([one.scale for one in each])
    return replace(
        each[0],
        shift=tuple(one.shift for one in each),
        scale=tuple(np.where(np.isnan(scales), np.nanmean(scales), scales).tolist()),
        num_neighbors=int(sum(num_edges(frames).sum() for frames in parts))
        / int(sum(num_atoms(frames).sum() for frames in parts)),
        heads=tuple(str(level.head) for level in levels),
        units=label_units(parts),
    )
