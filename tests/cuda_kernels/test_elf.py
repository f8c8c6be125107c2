import struct

import pytest

from cuda_kernels import elf

HEADER, SECTION = 64, 64


def file_of(contents: dict[bytes, bytes]) -> bytes:
    """An ELF file with these sections, and one that holds their names."""
    names = b"\0".join(contents) + b"\0.names\0"
    parts, headers, at = [*contents.values(), names], [], HEADER
    for name, part in zip([*contents, b".names"], parts, strict=True):
        headers.append(struct.pack("<IIQQQQ24x", names.index(name), 1, 0, 0, at, len(part)))
        at += len(part)
    counts = struct.pack("<HHH", SECTION, len(headers), len(headers) - 1)
    return b"\x7fELF" + bytes(36) + struct.pack("<Q", at) + bytes(10) + counts + b"".join([*parts, *headers])


FILE = file_of({b".text": b"code", b".data": b"numbers"})


def test_a_section_is_found_by_its_name():
    assert elf.section(FILE, b".data") == b"numbers"
    with pytest.raises(RuntimeError, match=r"\.bss"):
        elf.section(FILE, b".bss")


def test_a_file_is_whole_or_cut_short():
    assert elf.is_whole(FILE)
    assert not any(elf.is_whole(FILE[:length]) for length in range(len(FILE)))


def test_other_bytes_are_no_file():
    assert not elf.is_whole(b"something else" * 100)
