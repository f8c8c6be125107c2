"""The preset of ``frames`` that suits files and machine, where none is named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datasets.atoms_reading import read_atoms

AUTO = "auto"
# Reading more would take longer than it tells.
FRAMES_LOOKED_AT = 5000
# Not measured, but a guess: fewer atoms in all frames leave little for more weights to learn.
FEW_ATOMS = 2000
# Likewise: hours of training are little beside as many reference calculations.
MANY_ATOMS, MANY_ELEMENTS = 200_000, 20


@dataclass(frozen=True)
class Amount:
    """What files hold, as far as they were looked at.

    Args:
        frames: their number.
        atoms: those of all frames together.
        elements: different ones.
        more: whether there are frames that were not looked at.
    """

    frames: int
    atoms: int
    elements: int
    more: bool = False


def amount_in(files: Sequence[Path], format: str | None) -> Amount:
    """What the first frames of ``files``, in turn, hold. A file that is missing holds nothing; reading it will tell.

    Raises:
        ValueError: a file cannot be read.
    """
    found: Iterator = (atoms for file in files if file.is_file() for atoms in read_atoms(file, format))
    frames, atoms, elements = 0, 0, set()
    for image in islice(found, FRAMES_LOOKED_AT):
        frames, atoms = frames + 1, atoms + len(image)
        elements |= set(image.numbers.tolist())
    return Amount(frames, atoms, len(elements), more=frames == FRAMES_LOOKED_AT and next(found, None) is not None)


def choose(amount: Amount | None) -> tuple[str, str]:
    """The name of a preset, and why it is this one.

    Args:
        amount: what the training files hold; None without a GPU, where it does not matter.
    """
    if amount is None:
        return "small", "there is no GPU"
    counted = f"{amount.frames}{' or more' if amount.more else ''} frames"
    reason = f"{counted}, {amount.atoms} atoms in them, of {amount.elements} elements, on a GPU"
    if amount.atoms < FEW_ATOMS:
        return "small", reason
    if (amount.more and amount.atoms >= MANY_ATOMS) or amount.elements >= MANY_ELEMENTS:
        return "large", reason
    return "medium", reason
