"""The largest system whose energy and forces a card has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import timing
from .kind import default_dtype
from .model_rows import FAILURES, Contenders, edges_of, is_out_of_memory, reason, release
from .packages import GRAPHS

UNIT = 64
"""Atoms: sizes are multiples, so that crystals are nearly cubes."""
FIRST, LAST = 16 * UNIT, 2**16 * UNIT
"""The first size that is tried, and the last: four million atoms, whose edges take minutes to find."""
RESOLUTION = 1 / 32
"""The search ends when a size that does not fit is so little larger than one that does."""


def largest(contenders: Contenders) -> Iterator[dict]:
    """A row, as it comes, for each contender: the largest number of atoms, its edges, and what stops a larger one.

    Raises:
        ValueError: the models are not on a GPU.
    """
    device = contenders.package.device
    if device.type != "cuda":
        raise ValueError(f"device: got {device}; --largest looks for the end of a GPU's memory: --device cuda")
    contenders.made.pop(GRAPHS, None)  # graphs of earlier sizes would keep their memory
    for name in contenders.wanted:
        if name == GRAPHS:
            continue
        row: dict = {"peer": name, "ms": {}}
        if name in contenders.missing:
            row["missing"] = contenders.missing[name]
        else:
            row |= _largest(contenders, name)
        yield row


def _largest(contenders: Contenders, name: str) -> dict:
    edges: dict[int, int] = {}
    why = {2 * LAST: "nothing: larger ones were not tried"}

    def fits(atoms: int) -> bool:
        try:
            edges[atoms] = _evaluated(contenders, name, atoms)
        except FAILURES as error:
            why[atoms] = "out of memory" if is_out_of_memory(error) else reason(error)
        release(contenders.package.device)
        return atoms in edges

    atoms = search(fits, FIRST, LAST)
    if not atoms:
        return {"missing": f"{FIRST} atoms do not fit: {why[FIRST]}"}
    return {"atoms": atoms, "edges": edges[atoms], "structures": 1, "stopped_by": why[min(n for n in why if n > atoms)]}


def _evaluated(contenders: Contenders, name: str, atoms: int) -> int:
    """How many edges there are, after one evaluation; all that it needed is free again."""
    package, contender = contenders.package, contenders.made[name]
    contender.prepare(training=False)
    with default_dtype(package.default_dtype):
        batch = package.batch([atoms])
        timing.finished(lambda: package.evaluate(contender.model, batch), package.device)
    return edges_of(batch)


def search(fits: Callable[[int], bool], first: int, last: int) -> int:
    """The largest size that fits, a multiple of :data:`UNIT`, by doubling, then by halving intervals; 0 if the first
    one does not fit."""
    good, bad = 0, first
    while fits(bad):
        good, bad = bad, 2 * bad
        if bad > last:
            return good
    while good and bad - good > max(UNIT, RESOLUTION * good):
        middle = (good + bad) // 2 // UNIT * UNIT
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good
