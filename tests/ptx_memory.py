"""The memories of the PTX machine, and the instructions that read and write them.

Nothing is forgiven: an access must lie inside of what was registered and be aligned to its width. Shared memory begins
with NaN everywhere. What a thread copies asynchronously is read at once and arrives when that thread waits for it.
"""

from __future__ import annotations

import numpy as np

from tests.ptx_accesses import WORD, Accesses, by_word
from tests.ptx_arithmetic import TYPES, Lanes, Registers, Step
from tests.ptx_parser import Address, Instruction, PtxError

SHARED_WINDOW = 0x7B00_0000_0000
"""Where shared memory begins among generic addresses."""


class GlobalMemory:
    """Arrays at made-up addresses of 64 bits, with gaps between them that no kernel may touch."""

    START, CAPACITY, GAP = 0x7A5C_0000_0000, 1 << 27, 1 << 16
    name = "global"

    def __init__(self):
        self.bytes = np.zeros(self.CAPACITY, np.uint8)  # the system provides pages when they are used
        self._known = np.zeros(self.CAPACITY // WORD, np.bool_)
        self._next = self.GAP

    def place(self, values: np.ndarray, offset: int = 0) -> tuple[int, np.ndarray]:
        """A copy of the values in this memory: its address, and the array that kernels change.

        Args:
            offset: bytes of the address beyond a multiple of 256, for arrays that are not aligned.
        """
        begin = self._next + offset
        end = begin + values.nbytes
        if end + self.GAP > self.CAPACITY:
            raise MemoryError(f"the machine has {self.CAPACITY} bytes of global memory")
        self._next = (end // 256 + 1) * 256 + self.GAP
        self._known[begin // WORD : -(-end // WORD)] = True
        array = self.bytes[begin:end].view(values.dtype).reshape(values.shape)
        array[...] = values
        return self.START + begin, array

    def free(self, address: int, size: int) -> None:
        """From now on an access to these bytes is an error."""
        begin = address - self.START
        self._known[begin // WORD : -(-(begin + size) // WORD)] = False

    def places(self, addresses: np.ndarray, width: int, instruction: Instruction, lanes: Lanes) -> np.ndarray:
        """Where in `bytes` these addresses lie.

        Raises:
            PtxError: one is not aligned, or outside of all arrays.
        """
        offsets = addresses - self.START
        _check_alignment(addresses, width, instruction, lanes)
        known = (offsets >= 0) & (offsets + width <= self.CAPACITY)
        for end in (0, width - 1):
            known &= self._known[np.where(known, offsets + end, 0) // WORD]
        if not known.all():
            _refuse("outside of all arrays in global memory", addresses, ~known, instruction, lanes)
        return offsets

    def note(self, places, width: int, instruction: Instruction, lanes: Lanes, writes: bool) -> None:
        """Blocks run one after the other: there is nothing to compare."""


class SharedMemory:
    """The shared memory of one block, from `START` on."""

    START = 1024
    name = "shared"

    def __init__(self, size: int, threads: int):
        self.size, self._threads = size, threads
        self.bytes = np.zeros(-(-size // 16) * 16, np.uint8)
        self.reset()

    def reset(self) -> None:
        """As a block finds it: NaN, whatever the type of the number."""
        self.bytes[:] = 0xFF
        self.accesses = Accesses(len(self.bytes) // WORD, self._threads)
        self._committed = np.zeros(self._threads, np.int64)  # groups of copies of each thread
        self._open: list[tuple] = []
        self._groups: list[tuple] = []

    def places(self, addresses: np.ndarray, width: int, instruction: Instruction, lanes: Lanes) -> np.ndarray:
        """Where in `bytes` these addresses lie.

        Raises:
            PtxError: one is not aligned, or outside of the block's memory.
        """
        offsets = addresses - self.START
        _check_alignment(addresses, width, instruction, lanes)
        outside = (offsets < 0) | (offsets + width > self.size)
        if outside.any():
            _refuse(f"outside of the block's {self.size} bytes", addresses, outside, instruction, lanes)
        return offsets

    def note(self, places: np.ndarray, width: int, instruction: Instruction, lanes: Lanes, writes: bool) -> None:
        self.accesses.note(*by_word(lanes.numbers, places, width), instruction, writes)

    def copy_later(self, places: np.ndarray, values: np.ndarray, instruction: Instruction, lanes: Lanes) -> None:
        """Start copies of words, values (lanes, words), which any moment from now on may arrive in."""
        threads, words = by_word(lanes.numbers, places, WORD * values.shape[1])
        self.accesses.note(threads, words, instruction, True)
        self._open.append((threads, words, values.reshape(-1)))

    def commit(self, lanes: Lanes) -> None:
        """The copies that these threads started since the last time are a group of each."""
        if self._open:
            every = [np.concatenate(parts) for parts in zip(*self._open, strict=True)]
            mine = lanes.member[every[0]]
            threads, *rest = (part[mine] for part in every)
            self._groups.append((threads, *rest, self._committed[threads]))
            self._open = [] if mine.all() else [tuple(part[~mine] for part in every)]
        self._committed[lanes.numbers] += 1

    def wait(self, pending: int, lanes: Lanes, instruction: Instruction) -> None:
        """All groups of these threads have arrived but the last `pending` ones of each."""
        remaining = []
        for group in self._groups:
            threads, words, values, number = group
            arrived = lanes.member[threads] & (number < self._committed[threads] - pending)
            self.bytes.view(np.uint32)[words[arrived]] = values[arrived]
            self.accesses.note(threads[arrived], words[arrived], instruction, True)
            if not arrived.all():
                remaining.append(tuple(part[~arrived] for part in group))
        self._groups = remaining


def _check_alignment(addresses: np.ndarray, width: int, instruction: Instruction, lanes: Lanes) -> None:
    if (addresses % width).any():
        _refuse(f"not aligned to {width} bytes", addresses, addresses % width != 0, instruction, lanes)


def _refuse(reason: str, addresses, wrong, instruction: Instruction, lanes: Lanes) -> None:
    n = np.flatnonzero(wrong)[0]
    raise PtxError(f"`{instruction.text}`: address {addresses[n]:#x} of lane {lanes.numbers[n]} is {reason}")


def step_of(instruction: Instruction, registers: Registers, memories: dict, parameters: dict[str, int]) -> Step | None:
    """What the lanes do at an instruction that uses memory; None if it is none of those.

    Args:
        memories: by PTX's names, "global" and "shared".
        parameters: of the kernel, by name.
    """
    match instruction.opcode:
        case "ld", "param", kind:
            return _load_parameter(kind, instruction, registers, parameters)
        case "ld" | "st", space, *vector, kind if space in memories and vector in ([], ["v2"], ["v4"]):
            make = _load if instruction.opcode[0] == "ld" else _store
            return make(kind, instruction, registers, memories[space])
        case "red", "global", "add", kind:
            return _add(kind, instruction, registers, memories["global"])
        case "cvta", *direction, space, "u64" if space in memories and direction in ([], ["to"]):
            return _convert_address(space, bool(direction), instruction, registers)
        case "cp", "async", "ca" | "cg", "shared", "global":
            return _copy(instruction, registers, memories["global"], memories["shared"])
        case "cp", "async", "commit_group":
            return memories["shared"].commit
        case "cp", "async", "wait_group":
            pending = int(instruction.operands[0])
            return lambda lanes: memories["shared"].wait(pending, lanes, instruction)
    return None


def _load_parameter(kind: str, instruction: Instruction, registers: Registers, parameters: dict[str, int]) -> Step:
    target, address = instruction.operands
    if address.base not in parameters or address.offset:
        raise PtxError(f"no such parameter: {instruction.text}")
    target = registers.target(target, kind)
    value = np.array(parameters[address.base]).astype(TYPES[kind])
    return lambda lanes: np.copyto(target, value, where=lanes.where)


def _convert_address(space: str, to_space: bool, instruction: Instruction, registers: Registers) -> Step:
    """Between an address in a memory and the generic one, at which any memory may lie."""
    target, value = registers.target(instruction.operands[0], "u64"), registers.source(instruction.operands[1], "u64")
    window = np.uint64(SHARED_WINDOW if space == "shared" else 0)
    function = np.subtract if to_space else np.add
    return lambda lanes: function(value, window, out=target, where=lanes.where)


def _addresses(address: Address, registers: Registers, lanes: Lanes) -> np.ndarray:
    return registers.address(address.base)[lanes.numbers].astype(np.int64) + address.offset


def _vector(operand) -> tuple[str, ...]:
    return operand if isinstance(operand, tuple) else (operand,)


def _load(kind: str, instruction: Instruction, registers: Registers, memory) -> Step:
    names, address = instruction.operands
    targets = [registers.target(name, kind) for name in _vector(names)]
    numbers, size = memory.bytes.view(TYPES[kind]), np.dtype(TYPES[kind]).itemsize
    width = size * len(targets)

    def load(lanes: Lanes) -> None:
        places = memory.places(_addresses(address, registers, lanes), width, instruction, lanes)
        memory.note(places, width, instruction, lanes, False)
        for n, target in enumerate(targets):
            target[lanes.numbers] = numbers[places // size + n]

    return load


def _store(kind: str, instruction: Instruction, registers: Registers, memory) -> Step:
    address, names = instruction.operands
    values = [registers.source(name, kind) for name in _vector(names)]
    numbers, size = memory.bytes.view(TYPES[kind]), np.dtype(TYPES[kind]).itemsize
    width = size * len(values)

    def store(lanes: Lanes) -> None:
        places = memory.places(_addresses(address, registers, lanes), width, instruction, lanes)
        memory.note(places, width, instruction, lanes, True)
        for n, value in enumerate(values):
            numbers[places // size + n] = np.broadcast_to(value, lanes.member.shape)[lanes.numbers]

    return store


def _add(kind: str, instruction: Instruction, registers: Registers, memory: GlobalMemory) -> Step:
    address, name = instruction.operands
    value, numbers = registers.source(name, kind), memory.bytes.view(TYPES[kind])
    size = numbers.itemsize

    def add(lanes: Lanes) -> None:
        places = memory.places(_addresses(address, registers, lanes), size, instruction, lanes)
        np.add.at(numbers, places // size, value[lanes.numbers])

    return add


def _copy(instruction: Instruction, registers: Registers, memory: GlobalMemory, shared: SharedMemory) -> Step:
    target, source, width = instruction.operands
    width, numbers = int(width), memory.bytes.view(np.uint32)
    words = np.arange(width // WORD)

    def copy(lanes: Lanes) -> None:
        places = memory.places(_addresses(source, registers, lanes), width, instruction, lanes)
        values = numbers[places[:, None] // WORD + words]
        shared.copy_later(
            shared.places(_addresses(target, registers, lanes), width, instruction, lanes), values, instruction, lanes
        )

    return copy
