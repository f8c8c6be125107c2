"""A machine that runs PTX without a GPU: all lanes of a block at a time, blocks one after the other.

Lanes go through the program together as far as they can: the next instruction is the earliest one at which any lane
stands that does not wait, and all lanes that stand there execute it. So lanes that took different branches meet again.
It is a test's oracle for what a kernel does, not for how fast: see `ptx_memory` for the mistakes that it finds.
"""

from __future__ import annotations

import numpy as np

from tests import ptx_arithmetic, ptx_memory
from tests.ptx_arithmetic import WARP, Lanes, Registers
from tests.ptx_memory import GlobalMemory, SharedMemory
from tests.ptx_parser import Instruction, Program, PtxError, parse

MOST_RUNS = 1_000_000
"""Stretches without a branch that a block may run, lest a wrong loop never end."""


def run(
    text: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    shared_bytes: int,
    parameters: tuple[int, ...],
    memory: GlobalMemory,
) -> None:
    """Run the only kernel of a PTX text.

    Args:
        grid, block: blocks, and threads of a block, in x, y and z.
        shared_bytes: of a block, for the symbol whose size the text leaves open.
        parameters: numbers, and addresses that `memory` gave.

    Raises:
        PtxError: an instruction is not known, an access is wrong, or lanes wait for each other for ever.
    """
    program = parse(text)
    if np.prod(block) % WARP:
        raise PtxError(f"the machine knows whole warps only, got blocks of {block} threads")
    if len(parameters) != len(program.parameters):
        raise PtxError(f"the kernel has {len(program.parameters)} parameters, got {len(parameters)}")
    machine = _Machine(program, grid, block, shared_bytes, parameters, memory)
    with np.errstate(all="ignore"):
        for z in range(grid[2]):
            for y in range(grid[1]):
                for x in range(grid[0]):
                    machine.run_block((x, y, z))


class _Machine:
    """A program made ready for blocks of one size."""

    def __init__(self, program: Program, grid, block, shared_bytes: int, parameters, memory: GlobalMemory):
        self.program, self.threads = program, int(np.prod(block))
        self._block_index = [np.zeros(1, np.uint32) for _ in range(3)]
        symbols, size = _shared_layout(program, shared_bytes)
        self.shared = SharedMemory(size, self.threads)
        special = self._special_registers(grid, block, shared_bytes)
        special |= {name: np.full(self.threads, address, np.uint64) for name, address in symbols.items()}
        self.registers = Registers(program, self.threads, special)
        memories = {"global": memory, "shared": self.shared}
        named = {name: value for (name, _), value in zip(program.parameters, parameters, strict=True)}
        self.steps = [self._step(instruction, memories, named) for instruction in program.instructions]
        self.stops = self._next_controls()
        self.block_barriers = np.array([i.opcode == ("bar", "sync") for i in program.instructions] + [False])

    def _special_registers(self, grid, block, shared_bytes: int) -> dict[str, np.ndarray]:
        threads = np.arange(self.threads, dtype=np.uint32)
        places = threads % block[0], threads // block[0] % block[1], threads // (block[0] * block[1])
        special = {"%dynamic_smem_size": np.full(1, shared_bytes, np.uint32)}
        for n, axis in enumerate("xyz"):
            special[f"%tid.{axis}"] = places[n].astype(np.uint32)
            special[f"%ctaid.{axis}"] = self._block_index[n]
            special[f"%ntid.{axis}"] = np.full(1, block[n], np.uint32)
            special[f"%nctaid.{axis}"] = np.full(1, grid[n], np.uint32)
        return special

    def _step(self, instruction: Instruction, memories, parameters):
        """What the lanes do at an instruction; None if it decides where they go next."""
        if instruction.opcode[0] in _CONTROLS:
            return None
        try:
            step = ptx_memory.step_of(instruction, self.registers, memories, parameters)
            step = step or ptx_arithmetic.step_of(instruction, self.registers)
        except (KeyError, ValueError) as error:
            raise PtxError(f"unknown instruction: {instruction.text} ({error})") from error
        if instruction.guard is None:
            return step
        guard, wanted = self.registers.source(instruction.guard, "pred"), not instruction.negated
        return lambda lanes: step(lanes.those(guard == wanted))

    def _next_controls(self) -> list[int]:
        """For each instruction the first one from it on that has no step."""
        stops, stop = [], len(self.steps)
        for number in range(len(self.steps) - 1, -1, -1):
            stop = number if self.steps[number] is None else stop
            stops.append(stop)
        return stops[::-1]

    def run_block(self, index: tuple[int, int, int]) -> None:
        for axis, value in zip(self._block_index, index, strict=True):
            axis[:] = value
        self.shared.reset()
        _Block(self).run()


class _Block:
    """Where the lanes of a block stand.

    Attributes:
        at: the number of each lane's next instruction.
        ended: lanes that returned.
        waiting: lanes that stand at a barrier.
    """

    def __init__(self, machine: _Machine):
        self.machine, self.instructions = machine, machine.program.instructions
        self.at = np.zeros(machine.threads, np.int64)
        self.ended = np.zeros(machine.threads, np.bool_)
        self.waiting = np.zeros(machine.threads, np.bool_)
        self.warp = np.arange(machine.threads) // WARP

    def run(self) -> None:
        steps, stops = self.machine.steps, self.machine.stops
        for _ in range(MOST_RUNS):
            running = ~(self.ended | self.waiting)
            if not running.any():
                if self.ended.all():
                    self.machine.shared.accesses.block_barrier(Lanes(self.ended))
                    return
                raise PtxError(f"lanes wait for each other for ever: {self._places()}")
            first = int(self.at[running].min())
            here = running & (self.at == first)
            others = self.at[running & ~here]
            stop = min(stops[first], int(others.min())) if len(others) else stops[first]
            lanes = Lanes(here)
            for step in steps[first:stop]:
                step(lanes)
            self.at[here] = stop
            if stop == stops[first]:
                instruction = self.instructions[stop]
                _CONTROLS[instruction.opcode[0]](self, instruction, lanes)
        raise PtxError(f"the block has no end: it is at {self._places()}")

    def branch(self, instruction: Instruction, lanes: Lanes) -> None:
        target = self.machine.program.labels[instruction.operands[0]]
        taken = self._guarded(instruction, lanes)
        self.at[lanes.numbers] += 1
        self.at[taken.numbers] = target

    def end(self, instruction: Instruction, lanes: Lanes) -> None:
        ending = self._guarded(instruction, lanes)
        self.at[lanes.numbers] += 1
        self.ended |= ending.member
        self._release()

    def wait(self, instruction: Instruction, lanes: Lanes) -> None:
        if instruction.guard is not None:
            raise PtxError(f"unknown instruction: {instruction.text}")
        self.waiting |= lanes.member
        self._release()

    def _guarded(self, instruction: Instruction, lanes: Lanes) -> Lanes:
        if instruction.guard is None:
            return lanes
        guard = self.machine.registers.source(instruction.guard, "pred")
        return lanes.those(guard != instruction.negated)

    def _release(self) -> None:
        """Let those pass for whom nobody is missing any more: the lanes of a warp at one place, or all of the block."""
        of_block = self.waiting & self.machine.block_barriers[self.at]
        if of_block.any() and (of_block | self.ended).all():
            self.machine.shared.accesses.block_barrier(Lanes(np.ones_like(of_block)))
            self._pass(of_block)
        of_warps = self.waiting & ~of_block
        for number in np.unique(self.at[of_warps]):
            here = of_warps & (self.at == number)
            missing = self.warp[~(here | self.ended)]
            whole = here & ~np.isin(self.warp, missing)
            if whole.any():
                self._act_together(self.instructions[number], Lanes(whole))
                self._pass(whole)

    def _act_together(self, instruction: Instruction, lanes: Lanes) -> None:
        match instruction.opcode, instruction.operands:
            case ("bar", "warp", "sync"), ("-1" | "0xffffffff",):
                self.machine.shared.accesses.warp_barrier(lanes)
            case ("shfl", "sync", "bfly", "b32"), (target, value, distance, "31", "-1" | "0xffffffff"):
                registers = self.machine.registers
                others = lanes.numbers ^ int(distance)
                if not lanes.member[others].all():
                    raise PtxError(f"`{instruction.text}`: a lane to exchange with has returned")
                registers.target(target, "b32")[lanes.numbers] = registers.source(value, "b32")[others]
            case ("vote", "sync", "ballot", "b32"), (target, value, mask):
                registers = self.machine.registers
                if not np.all(registers.source(mask, "b32")[lanes.numbers] == np.uint32(0xFFFFFFFF)):
                    raise PtxError(f"`{instruction.text}`: not of all lanes of a warp")
                bits = (registers.source(value, "pred") & lanes.member).reshape(-1, WARP)
                ballots = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
                registers.target(target, "b32")[lanes.numbers] = np.repeat(ballots, WARP)[lanes.numbers]
            case _:
                raise PtxError(f"unknown instruction: {instruction.text}")

    def _pass(self, those: np.ndarray) -> None:
        self.at[those] += 1
        self.waiting &= ~those

    def _places(self) -> str:
        numbers, counts = np.unique(self.at[~self.ended], return_counts=True)
        return "; ".join(f"{c} lanes at `{self.instructions[n].text}`" for n, c in zip(numbers, counts, strict=True))


_CONTROLS = {
    "bra": _Block.branch,
    "ret": _Block.end,
    "exit": _Block.end,
    "bar": _Block.wait,
    "shfl": _Block.wait,
    "vote": _Block.wait,
}


def _shared_layout(program: Program, shared_bytes: int) -> tuple[dict[str, int], int]:
    """The address of each symbol of shared memory, the one of unknown size last, and the bytes of them all."""
    addresses, size = {}, 0
    for name, known in sorted(program.shared.items(), key=lambda item: item[1] is None):
        addresses[name] = SharedMemory.START + size
        size += shared_bytes if known is None else -(-known // 16) * 16
    return addresses, size
