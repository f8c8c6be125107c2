"""Who uses the words of a block's shared memory between barriers: two threads, one of them to write, may not.

All lanes of the machine go in step, so that a missing barrier would change no result. On a GPU it may.
"""

from __future__ import annotations

import numpy as np

from tests.ptx_arithmetic import WARP, Lanes
from tests.ptx_parser import Instruction, PtxError

WORD = 4
"""Bytes that accesses are compared by."""


def by_word(threads: np.ndarray, places: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(thread, word) of every word of accesses of this width."""
    words, first = width // WORD, places // WORD
    return (threads, first) if words == 1 else (np.repeat(threads, words), (first[:, None] + np.arange(words)).ravel())


class Accesses:
    """Who used which word of shared memory since the last barrier: of the warp, and of the block."""

    def __init__(self, words: int, threads: int):
        self._writer = np.full(words, -1)
        self._since_warp: list[tuple] = []
        self._since_block: list[tuple] = []

    def note(self, threads: np.ndarray, words: np.ndarray, instruction: Instruction, writes: bool) -> None:
        if len(words):
            self._since_warp.append((threads, words, np.full(len(words), writes), np.full(len(words), instruction)))

    def warp_barrier(self, lanes: Lanes) -> None:
        """These lanes, all of their warps, wait for each other.

        Raises:
            PtxError: two of them used a word before it, one of them to write.
        """
        if not self._since_warp:
            return
        every = [np.concatenate(parts) for parts in zip(*self._since_warp, strict=True)]
        here = lanes.member[every[0]]
        checked = tuple(part[here] for part in every)
        self._since_warp = [] if here.all() else [tuple(part[~here] for part in every)]
        self._compare(*checked, checked[0], "lane", "warp")
        self._since_block.append(checked)

    def block_barrier(self, lanes: Lanes) -> None:
        """All lanes of the block wait for each other, or have come to their ends.

        Raises:
            PtxError: two of them used a word before it, one of them to write.
        """
        self.warp_barrier(lanes)
        if self._since_block:
            threads, *rest = (np.concatenate(parts) for parts in zip(*self._since_block, strict=True))
            self._compare(threads, *rest, threads // WARP, "warp", "block")
        self._since_block = []

    def _compare(self, threads, words, writes, instructions, users, user: str, among: str) -> None:
        self._writer[words[writes]] = users[writes]
        known = self._writer[words]
        clash = np.flatnonzero((known >= 0) & (known != users))
        if len(clash):
            one = clash[0]
            other = np.flatnonzero((words == words[one]) & writes & (users == known[one]))[0]
            accesses = " and ".join(f"{user} {users[n]} at `{instructions[n].text}`" for n in (one, other))
            raise PtxError(f"no barrier of the {among} between {accesses}, both at byte {words[one] * WORD}")
        self._writer[words[writes]] = -1
