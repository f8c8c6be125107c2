"""Which bytes of an edge a warp copies into shared memory, and where it finds them there.

A warp serves 32 channels of one node. While it computes with one edge, the rows of the next edges are on their way: the
far node's features, the edge's features and weights. Rows whose channels are contiguous and aligned travel 16 bytes a
lane; others, such as 5 channels or edge features of odd length, number by number.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..polynomial import Element
from ..problem import Block, Channels, Problem, Row

LANES = 32
WIDE, NARROW = 16, 4
"""Bytes of the widest and of the narrowest asynchronous copy."""


def lane_row_bytes(item: int) -> int:
    """Bytes of a row of numbers in shared memory, one of each lane: rows as long as this fall on different banks."""
    return LANES * item + WIDE


@dataclass(frozen=True)
class Source:
    """Lanes from `first_lane` on read at offset + (lane - first_lane) * lane_step + channel * channel_step bytes from
    the copy's start."""

    first_lane: int
    offset: int
    lane_step: int
    channel_step: int


@dataclass(frozen=True)
class Copy:
    """One instruction: lanes below `lanes` copy `size` bytes of the operand's row, found by `sources` from `start` on,
    to target + lane * size bytes of the stage.

    With `masked`, only lanes whose channel exists.
    """

    operand: str
    size: int
    lanes: int
    target: int
    start: int
    sources: tuple[Source, ...]
    masked: bool = False


@dataclass(frozen=True)
class Stage:
    """The copies of one edge, the place of each element (byte offset, bytes a lane), and the bytes of it all."""

    copies: tuple[Copy, ...]
    places: dict[Element, tuple[int, int]]
    size: int


def plan(problem: Problem, multiplicity: int, blocks: dict[str, list[int]]) -> Stage:
    """The stage for these blocks of each operand, all of `multiplicity` channels."""
    builder = _Builder()
    for operand, numbers in blocks.items():
        row, builder.item = problem.row(operand), problem.stored_bytes(operand)
        if problem.operand(operand).channels is Channels.NONE:
            builder.row(operand, row, numbers)
        elif _is_wide(row, numbers, multiplicity, builder.item):
            builder.wide_channels(operand, row, numbers)
        else:
            builder.narrow_channels(operand, row, numbers, multiplicity)
    return Stage(tuple(builder.copies), builder.places, builder.size)


def can_be_read(problem: Problem, name: str) -> bool:
    """Whether kernels read the operand as it is stored. They read four bytes at least: numbers of two not in rows of
    odd length, and not where channels lie apart."""
    row, item, channels = problem.row(name), problem.stored_bytes(name), problem.operand(name).channels
    if item >= NARROW:
        return True
    if channels is Channels.NONE:
        return row.length * item % NARROW == 0
    if channels is Channels.PAIRS:
        numbers = (n for block in row.blocks for n in (block.offset, block.multiplicity, block.component_stride))
        return problem.has_maps and all(n * item % NARROW == 0 for n in (row.length, *numbers))
    places = [place for place, factor in enumerate(problem.form) if factor == name]
    found = {(problem.multiplicity(path), path.blocks[place]) for path in problem.paths for place in places}
    return all(_is_wide(row, [block], multiplicity, item) for multiplicity, block in found if block is not None)


def _is_wide(row: Row, numbers: list[int], multiplicity: int, item: int) -> bool:
    unit = WIDE // item
    return (
        multiplicity % LANES == 0
        and row.length % unit == 0
        and all(row.blocks[n].offset % unit == 0 and _contiguous(row.blocks[n]) for n in numbers)
    )


def _contiguous(block: Block) -> bool:
    """Whether the numbers of 32 channels lie together, for each component or all components."""
    return block.channel_stride == 1 or (block.component_stride == 1 and block.channel_stride == block.dim)


class _Builder:
    """Attributes: item: bytes of a number of the operand whose copies are added."""

    item: int

    def __init__(self):
        self.copies: list[Copy] = []
        self.places: dict[Element, tuple[int, int]] = {}
        self.size = 0

    def row(self, operand: str, row: Row, numbers: list[int]) -> None:
        """A row without channels, as a whole."""
        size = WIDE if row.length * self.item % WIDE == 0 else max(self.item, NARROW)
        count = row.length * self.item // size
        start = self._reserve(row.length * self.item)
        for done in range(0, count, LANES):
            lanes = min(LANES, count - done)
            self.copies.append(Copy(operand, size, lanes, start + done * size, done * size, (Source(0, 0, size, 0),)))
        for n in numbers:
            block = row.blocks[n]
            for i in range(block.dim):
                self.places[operand, n, i] = (start + (block.offset + i * block.component_stride) * self.item, 0)

    def wide_channels(self, operand: str, row: Row, numbers: list[int]) -> None:
        """Runs of contiguous numbers, laid end to end, 16 bytes a lane."""
        item, runs, start = self.item, [], self.size
        for n in numbers:
            block = row.blocks[n]
            together = block.channel_stride == block.dim  # all components of a channel, else a run for each component
            run_bytes = LANES * item * (block.dim if together else 1)
            for i in range(block.dim):
                if i == 0 or not together:
                    offset = (block.offset + i * block.component_stride) * item
                    runs.append((self._reserve(run_bytes), offset, run_bytes, block.channel_stride * item))
                self.places[operand, n, i] = (runs[-1][0] + (i * item if together else 0), block.channel_stride * item)
        chunks = [
            (offset + done, channel_step)
            for _, offset, run_bytes, channel_step in runs
            for done in range(0, run_bytes, WIDE)
        ]
        for done in range(0, len(chunks), LANES):
            part = chunks[done : done + LANES]
            self.copies.append(Copy(operand, WIDE, len(part), start + done * WIDE, part[0][0], _sources(part)))

    def narrow_channels(self, operand: str, row: Row, numbers: list[int], multiplicity: int) -> None:
        """Each component number by number, a lane a channel."""
        for n in numbers:
            block = row.blocks[n]
            step = block.channel_stride * self.item
            for i in range(block.dim):
                start = self._reserve(LANES * self.item)
                offset = (block.offset + i * block.component_stride) * self.item
                masked = multiplicity % LANES != 0
                self.copies.append(Copy(operand, self.item, LANES, start, offset, (Source(0, 0, step, step),), masked))
                self.places[operand, n, i] = (start, self.item)

    def _reserve(self, size: int) -> int:
        start, self.size = self.size, self.size + -(-size // WIDE) * WIDE
        return start


def _sources(chunks: list[tuple[int, int]]) -> tuple[Source, ...]:
    """Consecutive chunks of (offset, channel step) as few runs, counted from the first chunk."""
    sources: list[Source] = []
    for lane, (place, channel_step) in enumerate(chunks):
        offset = place - chunks[0][0]
        last = sources[-1] if sources else None
        follows = last and last.channel_step == channel_step and offset == last.offset + (lane - last.first_lane) * WIDE
        if not follows:
            sources.append(Source(lane, offset, WIDE, channel_step))
    return tuple(sources)
