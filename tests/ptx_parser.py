"""PTX text as a list of instructions: the grammar that NVIDIA's compiler writes, of one kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


class PtxError(RuntimeError):
    """The text cannot be understood, or the program does what no kernel may do."""


@dataclass(frozen=True)
class Address:
    """[base + offset], the base a register, a parameter or a symbol of shared memory."""

    base: str
    offset: int


Operand = str | Address | tuple[str, ...]


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as ``@!%p3 ld.global.v2.f64 {%fd1, %fd2}, [%rd5+16];``.

    Attributes:
        number: its place in the program.
        text: as it was written, for messages.
        guard: the predicate register that it depends on, if any.
        negated: whether it runs where the guard is false.
        opcode: its name in parts, such as ("ld", "global", "v2", "f64").
        operands: registers, numbers, labels and symbols as they were written; vectors are tuples.
    """

    number: int
    text: str
    guard: str | None
    negated: bool
    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Program:
    """A kernel.

    Attributes:
        instructions: in the order of the text.
        labels: the number of the instruction that follows each label.
        registers: the type of each, such as "b32".
        parameters: the name and type of each, in order.
        shared: bytes of each symbol in shared memory; None for the one that the launch gives the size of.
    """

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    registers: dict[str, str]
    parameters: tuple[tuple[str, str], ...]
    shared: dict[str, int | None]


_LABEL = re.compile(r"(\$?[\w$]+):\s*")
_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z]\w*(?:\.\w+)*)\s*(.*)", re.DOTALL)
_OPERAND = re.compile(r"\[[^\]]*\]|\{[^}]*\}|[^,\s]+")
_ADDRESS = re.compile(r"([%$\w]+?)\s*(?:\+\s*(-?\w+))?")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+([%\w]+)(?:<(\d+)>)?")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+\d+\s+)?\.b8\s+(\w+)\[(\d*)\]")
_PARAMETER = re.compile(r"\.param\s+\.(\w+)\s+(\w+)")


@cache
def parse(text: str) -> Program:
    """The only kernel of a PTX text.

    Raises:
        PtxError: there is no kernel, or a line is not understood.
    """
    text = re.sub(r"//[^\n]*", "", text)
    header, entry, kernel = text.partition(".entry")
    signature, brace, body = kernel.partition("{")
    if not entry or not brace:
        raise PtxError("the text has no kernel (.entry)")
    instructions, labels, registers = [], {}, {}
    shared = _shared(header)
    for statement in _statements(body, labels, instructions):
        if statement.startswith(".reg"):
            registers.update(_registers(statement))
        elif statement.startswith(".shared"):
            shared.update(_shared(statement))
        elif not statement.startswith((".pragma", ".loc")):
            instructions.append(_instruction(len(instructions), statement))
    parameters = tuple((name, kind) for kind, name in _PARAMETER.findall(signature))
    return Program(tuple(instructions), labels, registers, parameters, shared)


def _statements(body: str, labels: dict[str, int], instructions: list[Instruction]):
    """The statements between semicolons; labels are noted on the way, scopes make no difference."""
    for statement in body.split(";"):
        statement = statement.strip()
        while statement:
            if statement[0] in "{}":
                statement = statement[1:].lstrip()
            elif label := _LABEL.match(statement):
                labels[label.group(1)] = len(instructions)
                statement = statement[label.end() :]
            else:
                yield statement
                break


def _instruction(number: int, statement: str) -> Instruction:
    found = _INSTRUCTION.fullmatch(statement)
    if not found:
        raise PtxError(f"not understood: {statement}")
    negation, guard, opcode, operands = found.groups()
    text = " ".join(statement.split()) + ";"
    parts = tuple(_operand(operand) for operand in _OPERAND.findall(operands))
    return Instruction(number, text, guard, negation == "!", tuple(opcode.split(".")), parts)


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return tuple(part.strip() for part in text[1:-1].split(","))
    if text.startswith("["):
        found = _ADDRESS.fullmatch(text[1:-1].strip())
        if not found:
            raise PtxError(f"not understood: {text}")
        return Address(found.group(1), int(found.group(2) or "0", 0))
    return text


def _registers(statement: str) -> dict[str, str]:
    kind, name, count = _REGISTERS.fullmatch(statement).groups()
    return {name: kind} if count is None else {f"{name}{n}": kind for n in range(int(count))}


def _shared(text: str) -> dict[str, int | None]:
    return {name: int(size) if size else None for name, size in _SHARED.findall(text)}
