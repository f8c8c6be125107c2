"""The PTX instructions that read and write registers only, for all lanes of a block at a time.

A register is an array with a number for each lane. An instruction becomes a function of the lanes that execute it: the
others keep their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch

from tests.ptx_parser import Instruction, Program, PtxError

TYPES = {
    "pred": np.bool_,
    **{f"{letter}16": kind for letter, kind in (("b", np.uint16), ("u", np.uint16), ("s", np.int16))},
    **{f"{letter}32": kind for letter, kind in (("b", np.uint32), ("u", np.uint32), ("s", np.int32))},
    **{f"{letter}64": kind for letter, kind in (("b", np.uint64), ("u", np.uint64), ("s", np.int64))},
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
"""A PTX type as NumPy's."""
WARP = 32
"""Lanes of a warp."""


class Lanes:
    """The lanes of a block that execute an instruction together.

    Attributes:
        member: whether each lane is one of them.
        numbers: theirs.
        where: `member`, or True if all lanes are; what NumPy's functions take.
    """

    def __init__(self, member: np.ndarray):
        self.member = member
        self.numbers = np.flatnonzero(member)
        self.where = True if len(self.numbers) == len(member) else member

    def those(self, condition: np.ndarray) -> Lanes:
        """The ones of them for which the condition is true."""
        return Lanes(self.member & condition)


Step = Callable[[Lanes], None]


class Registers:
    """The registers of a block, by name, and what else may stand in their place: numbers, symbols, %tid and others.

    Args:
        special: arrays of the registers that are not declared; the machine may change what is in them.
    """

    def __init__(self, program: Program, threads: int, special: dict[str, np.ndarray]):
        self._arrays = {name: np.zeros(threads, TYPES[kind]) for name, kind in program.registers.items()} | special

    def source(self, operand: str, kind: str) -> np.ndarray:
        """The numbers of an operand read as this type; of a wider register the lower half."""
        array, wanted = self._arrays.get(operand), np.dtype(TYPES[kind])
        if array is None:
            return np.array(_number(operand, wanted))
        if array.dtype.itemsize == wanted.itemsize:
            return array.view(wanted)
        if array.dtype.itemsize < wanted.itemsize:
            raise PtxError(f"{operand} is too narrow to be read as {kind}")
        return array.view(wanted)[:: array.dtype.itemsize // wanted.itemsize]

    def target(self, operand: str, kind: str) -> np.ndarray:
        """Where results of this type are written; into a wider register with their sign extended."""
        array, wanted = self._arrays[operand], np.dtype(TYPES[kind])
        if array.dtype.itemsize > wanted.itemsize and wanted.kind in "ui":
            return array.view(f"{wanted.kind}{array.dtype.itemsize}")
        if array.dtype.itemsize != wanted.itemsize:
            raise PtxError(f"{operand} does not hold {kind}")
        return array.view(wanted)

    def address(self, base: str) -> np.ndarray:
        """A register or symbol that holds an address of 32 or 64 bits."""
        return self._arrays[base]


def _number(text: str, kind: np.dtype):
    """A number as PTX writes it: 12, -1, 0xff, or the bits of a float after 0f or 0d."""
    if re.fullmatch("0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}", text):
        return np.array(int(text[2:], 16), f"u{len(text[2:]) // 2}").view(kind)
    if not re.fullmatch("-?(0x[0-9a-fA-F]+|[0-9]+)", text):
        raise PtxError(f"neither a register nor a number: {text}")
    if kind == np.bool_:
        return bool(int(text, 0))
    return np.array(int(text, 0) % 2 ** (8 * kind.itemsize), f"u{kind.itemsize}").view(kind)


_FUNCTIONS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "neg": np.negative,
}
_COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def step_of(instruction: Instruction, registers: Registers) -> Step:
    """What the lanes do at an instruction.

    Raises:
        PtxError: the instruction is not known here.
    """
    *name, kind = instruction.opcode
    name = ".".join(name)
    if name in _FUNCTIONS:
        return _function(_FUNCTIONS[name], kind, instruction, registers)
    if name.startswith("setp.") and name[5:] in _COMPARISONS:
        return _comparison(_COMPARISONS[name[5:]], kind, instruction, registers)
    if name in _OTHERS:
        return _OTHERS[name](kind, instruction, registers)
    if instruction.opcode == ("cvt", "rn", "bf16", "f32"):
        return _to_bfloat16(instruction, registers)
    if instruction.opcode[0] == "cvt" and instruction.opcode[1:-2] in ((), ("rn",)):
        return _conversion(instruction, registers)
    raise PtxError(f"unknown instruction: {instruction.text}")


def _function(function, kind: str, instruction: Instruction, registers: Registers) -> Step:
    target = registers.target(instruction.operands[0], kind)
    values = [registers.source(operand, kind) for operand in instruction.operands[1:]]
    return lambda lanes: function(*values, out=target, where=lanes.where)


def _comparison(function, kind: str, instruction: Instruction, registers: Registers) -> Step:
    target = registers.target(instruction.operands[0], "pred")
    values = [registers.source(operand, kind) for operand in instruction.operands[1:]]
    return lambda lanes: function(*values, out=target, where=lanes.where)


def _copy(target: np.ndarray, values, lanes: Lanes) -> None:
    np.copyto(target, values, casting="unsafe", where=lanes.where)


def _move(kind: str, instruction: Instruction, registers: Registers) -> Step:
    if kind == "b32" and tuple in map(type, instruction.operands):
        return _move_halves(instruction, registers)
    target, value = registers.target(instruction.operands[0], kind), registers.source(instruction.operands[1], kind)
    return lambda lanes: _copy(target, value, lanes)


def _move_halves(instruction: Instruction, registers: Registers) -> Step:
    """A register of 32 bits to two of 16, the lower half first, or back."""
    target, value = instruction.operands
    if isinstance(target, tuple):
        halves = [(registers.target(half, "b16"), 16 * n) for n, half in enumerate(target)]
        whole = registers.source(value, "b32")
        return lambda lanes: [_copy(half, whole >> np.uint32(bits), lanes) for half, bits in halves]
    low, high = (registers.source(half, "b16") for half in value)
    whole = registers.target(target, "b32")
    return lambda lanes: _copy(whole, low | (high.astype(np.uint32) << np.uint32(16)), lanes)


def _conversion(instruction: Instruction, registers: Registers) -> Step:
    """To the nearest number, of an integer the lowest bits."""
    *_, to, of = instruction.opcode
    target, value = registers.target(instruction.operands[0], to), registers.source(instruction.operands[1], of)
    narrow = TYPES[to]
    return lambda lanes: _copy(target, value.astype(narrow), lanes)


def _to_bfloat16(instruction: Instruction, registers: Registers) -> Step:
    """To the nearest of the numbers that are the upper halves of a float32."""
    target = registers.target(instruction.operands[0], "b16")
    value = registers.source(instruction.operands[1], "f32")
    return lambda lanes: _copy(
        target, torch.from_numpy(value.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16), lanes
    )


def _selection(kind: str, instruction: Instruction, registers: Registers) -> Step:
    target = registers.target(instruction.operands[0], kind)
    yes, no = (registers.source(operand, kind) for operand in instruction.operands[1:3])
    condition = registers.source(instruction.operands[3], "pred")
    return lambda lanes: _copy(target, np.where(condition, yes, no), lanes)


def _wide_product(kind: str, instruction: Instruction, registers: Registers) -> Step:
    wide = f"{kind[0]}64"
    target = registers.target(instruction.operands[0], wide)
    a, b = (registers.source(operand, kind) for operand in instruction.operands[1:])
    return lambda lanes: np.multiply(a, b, out=target, where=lanes.where, dtype=TYPES[wide])


def _high_product(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """The upper half of the product."""
    target = registers.target(instruction.operands[0], kind)
    a, b = (registers.source(operand, kind) for operand in instruction.operands[1:])
    bits = 8 * target.itemsize
    return lambda lanes: _copy(target, ((a.astype(object) * b.astype(object)) >> bits).astype(TYPES[kind]), lanes)


def _multiply_add(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """a b + c; of float32 rounded once."""
    target = registers.target(instruction.operands[0], kind)
    a, b, c = (registers.source(operand, kind) for operand in instruction.operands[1:])
    exact = np.float64 if kind == "f32" else TYPES[kind]
    return lambda lanes: _copy(target, np.multiply(a, b, dtype=exact) + c, lanes)


def _shift(function) -> Callable:
    def shift(kind: str, instruction: Instruction, registers: Registers) -> Step:
        target, value = (registers.target if n == 0 else registers.source for n in range(2))
        target, value = target(instruction.operands[0], kind), value(instruction.operands[1], kind)
        distance = registers.source(instruction.operands[2], "u32")
        return lambda lanes: _copy(target, function(value, distance), lanes)

    return shift


def _quotient(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """Rounded towards zero; any number where the divisor is zero."""
    target = registers.target(instruction.operands[0], kind)
    a, b = (registers.source(operand, kind) for operand in instruction.operands[1:])

    def quotient(lanes: Lanes) -> None:
        magnitude = np.abs(a) // np.maximum(np.abs(b), 1)
        _copy(target, np.where((a < 0) != (b < 0), -magnitude, magnitude), lanes)

    return quotient


def _remainder(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """With the sign of the dividend; any number where the divisor is zero."""
    target = registers.target(instruction.operands[0], kind)
    a, b = (registers.source(operand, kind) for operand in instruction.operands[1:])
    return lambda lanes: _copy(target, np.fmod(a, np.where(b == 0, 1, b)), lanes)


def _bit_field(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """The lowest `count` bits of a put into b at bit `start`."""
    target = registers.target(instruction.operands[0], kind)
    a, b, start, count = (registers.source(operand, kind) for operand in instruction.operands[1:])
    one = TYPES[kind](1)

    def insert(lanes: Lanes) -> None:
        field = ((one << count) - one) << start
        _copy(target, (b & ~field) | ((a << start) & field), lanes)

    return insert


def _reversed_bits(kind: str, instruction: Instruction, registers: Registers) -> Step:
    target, value = (
        f(o, kind) for f, o in zip((registers.target, registers.source), instruction.operands, strict=True)
    )

    def reverse(lanes: Lanes) -> None:
        bits = np.unpackbits(np.atleast_1d(value).view(np.uint8), bitorder="little").reshape(-1, 8 * value.itemsize)
        _copy(target, np.packbits(bits[:, ::-1], bitorder="little").view(value.dtype), lanes)

    return reverse


def _leading_zeros(kind: str, instruction: Instruction, registers: Registers) -> Step:
    """The distance by which the first bit that is one is to be moved to be the highest; -1 where there is none."""
    target = registers.target(instruction.operands[0], "u32")
    value = registers.source(instruction.operands[1], kind)
    highest = 8 * TYPES[kind]().itemsize - 1
    return lambda lanes: _copy(
        target, np.where(value == 0, -1, highest - np.floor(np.log2(np.maximum(value, 1)))).astype(np.int64), lanes
    )


_OTHERS = {
    "brev": _reversed_bits,
    "bfind.shiftamt": _leading_zeros,
    "mov": _move,
    "selp": _selection,
    "mul.wide": _wide_product,
    "mul.hi": _high_product,
    "mad.lo": _multiply_add,
    "fma.rn": _multiply_add,
    "shl": _shift(np.left_shift),
    "shr": _shift(np.right_shift),
    "div": _quotient,
    "rem": _remainder,
    "bfi": _bit_field,
}
