"""Machine code as files of the ELF format, 64-bit and little-endian: object code on Linux, and cubins."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MAGIC = b"\x7fELF"
_NOBITS = 8  # the type of a section that takes no room in the file


def section(code: bytes, name: bytes) -> bytes:
    """The content of a section.

    Raises:
        RuntimeError: there is none of this name.
    """
    sections = list(_sections(code))
    (names_index,) = struct.unpack_from("<H", code, 62)
    names = sections[names_index][2]
    for name_at, _, start, size in sections:
        if code[names + name_at :].split(b"\0", 1)[0] == name:
            return code[start : start + size]
    raise RuntimeError(f"the machine code lacks section {name.decode()}")


def is_whole(code: bytes) -> bool:
    """Whether all sections are there. Loaders abort the process, or read on behind the end, where they are not."""
    try:
        ends = [start + size for _, kind, start, size in _sections(code) if kind != _NOBITS]
    except struct.error:
        return False
    return code.startswith(_MAGIC) and max(ends, default=0) <= len(code)


def _sections(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of each section where its name is among the names, its type, its start and its size."""
    (headers,) = struct.unpack_from("<Q", code, 40)
    header_size, count = struct.unpack_from("<HH", code, 58)
    for n in range(count):
        name_at, kind, _, _, start, size = struct.unpack_from("<IIQQQQ24x", code, headers + n * header_size)
        yield name_at, kind, start, size
