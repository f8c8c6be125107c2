"""The PTX machine, on kernels of a few lines whose results are known."""

import numpy as np
import pytest

from tests.ptx_machine import run
from tests.ptx_memory import GlobalMemory
from tests.ptx_parser import Address, PtxError, parse

KERNEL = """
.version 9.5
.target sm_90
.extern .shared .align 16 .b8 dynamic[];
.visible .entry convolution(.param .u64 p_0, .param .u64 p_1)
{{
    .reg .pred %p<9>;  .reg .b32 %r<20>;  .reg .b64 %rd<20>;  .reg .f32 %f<20>;  .reg .f64 %fd<20>;
    ld.param.u64 %rd1, [p_0];
    ld.param.u64 %rd2, [p_1];
    mov.u32 %r1, %tid.x;
    mov.u64 %rd9, dynamic;
    mul.wide.u32 %rd3, %r1, 4;          // %rd5, %rd6: the lane's numbers of both arrays; %r2: its word of shared memory
    add.s64 %rd5, %rd1, %rd3;
    add.s64 %rd6, %rd2, %rd3;
    cvt.u32.u64 %r2, %rd9;
    mad.lo.s32 %r2, %r1, 4, %r2;
    {body}
    ret;
}}
"""


def result(body: str, values, out=None, threads: int = 32, grid: int = 1) -> np.ndarray:
    """What a kernel makes of `out` (NaN if it is not given), with the values as its other array."""
    values = np.asarray(values)
    memory = GlobalMemory()
    out = np.full(values.shape, np.nan, values.dtype) if out is None else out
    addresses, (_, found) = zip(*(memory.place(array) for array in (values, out)), strict=True)
    run(KERNEL.format(body=body), (grid, 1, 1), (threads, 1, 1), 4 * threads, addresses, memory)
    return found


NUMBERS = np.arange(32, dtype=np.float32)
INTEGERS = np.arange(-16, 16, dtype=np.int32)


def test_instructions_are_parsed():
    program = parse(KERNEL.format(body="$L1: @!%p1 ld.global.v2.f64 {%fd1, %fd2}, [%rd5+-16]; bra.uni $L1;"))
    load = program.instructions[program.labels["$L1"]]
    assert (load.guard, load.negated, load.opcode) == ("%p1", True, ("ld", "global", "v2", "f64"))
    assert load.operands == (("%fd1", "%fd2"), Address("%rd5", -16))
    assert program.registers["%fd19"] == "f64"
    assert program.parameters == (("p_0", "u64"), ("p_1", "u64"))
    assert program.shared == {"dynamic": None}


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("add.s32 %r4, %r3, 7", INTEGERS + 7),
        ("mul.lo.s32 %r4, %r3, -3", INTEGERS * -3),
        ("shr.s32 %r4, %r3, 2", INTEGERS >> 2),
        ("shr.u32 %r4, %r3, 28", (INTEGERS.view(np.uint32) >> np.uint32(28)).view(np.int32)),
        ("and.b32 %r4, %r3, 0xfe", INTEGERS & 0xFE),
        ("min.s32 %r4, %r3, 2", np.minimum(INTEGERS, 2)),
        ("min.u32 %r4, %r3, 2", np.where(INTEGERS < 0, 2, np.minimum(INTEGERS, 2))),
        ("div.s32 %r4, %r3, 3", np.trunc(INTEGERS / 3).astype(np.int32)),
        ("rem.s32 %r4, %r3, 3", INTEGERS - 3 * np.trunc(INTEGERS / 3).astype(np.int32)),
        ("mad.lo.s32 %r4, %r3, %r3, 1", INTEGERS**2 + 1),
        ("setp.lt.s32 %p1, %r3, 0; selp.b32 %r4, 5, 6, %p1", np.where(INTEGERS < 0, 5, 6)),
        ("setp.lt.u32 %p1, %r3, 3; @!%p1 mov.u32 %r4, 9", np.where((INTEGERS >= 0) & (INTEGERS < 3), 0, 9)),
        ("cvt.s64.s32 %rd7, %r3; shr.u64 %rd7, %rd7, 32; cvt.u32.u64 %r4, %rd7", np.where(INTEGERS < 0, -1, 0)),
        ("mul.hi.s32 %r4, %r3, 0x10000000", INTEGERS >> 4),
        ("mul.wide.s32 %rd7, %r3, 3; cvt.u32.u64 %r4, %rd7", INTEGERS * 3),
        ("cvt.u64.u32 %rd7, %r3; bfi.b64 %rd8, %rd7, 0, 4, 8; cvt.u32.u64 %r4, %rd8", (INTEGERS & 255) << 4),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_integers(instruction, expected):
    found = result(
        f"ld.global.u32 %r3, [%rd5]; mov.u32 %r4, 0; {instruction}; st.global.u32 [%rd6], %r4;", INTEGERS, INTEGERS
    )
    np.testing.assert_array_equal(found, expected)


def test_a_multiply_add_is_rounded_once():
    values = np.full(32, 1 + 2**-12, np.float32)
    body = "ld.global.f32 %f1, [%rd5]; fma.rn.f32 %f2, %f1, %f1, 0fBF800000; st.global.f32 [%rd6], %f2;"
    np.testing.assert_array_equal(result(body, values), np.float32(2**-11 + 2**-24))


def test_diverged_lanes_meet_again_and_loops_end_for_each_lane():
    body = """
    mov.u32 %r3, 0;
    mov.u32 %r4, 0;
    $loop: setp.ge.u32 %p1, %r3, %r1;
    @%p1 bra $after;
    add.s32 %r4, %r4, %r3;
    add.s32 %r3, %r3, 1;
    bra.uni $loop;
    $after: shfl.sync.bfly.b32 %r5, %r4, 1, 31, 0xffffffff;
    st.global.u32 [%rd6], %r5;
    """
    sums = np.array([sum(range(n)) for n in range(32)])
    np.testing.assert_array_equal(result(body, INTEGERS, INTEGERS), sums[np.arange(32) ^ 1])


def test_the_lowest_bit_and_the_reverse_of_all():
    body = """
    brev.b32 %r3, %r1;
    bfind.shiftamt.u32 %r4, %r3;
    shl.b32 %r4, %r4, 8;
    shr.u32 %r3, %r3, 24;
    or.b32 %r4, %r4, %r3;
    st.global.u32 [%rd6], %r4;
    """
    lowest = [(n & -n).bit_length() - 1 for n in range(32)]
    expected = np.array(lowest) * 256 | [int(f"{n:08b}"[::-1], 2) for n in range(32)]
    np.testing.assert_array_equal(result(body, INTEGERS, INTEGERS), expected)


def test_a_ballot_has_a_bit_for_each_lane():
    body = """
    mov.u32 %r2, -1;
    setp.ge.u32 %p1, %r1, 35;
    vote.sync.ballot.b32 %r3, %p1, %r2;
    st.global.u32 [%rd6], %r3;
    """
    numbers = np.arange(64, dtype=np.int32)
    np.testing.assert_array_equal(result(body, numbers, numbers, threads=64), [0] * 32 + [-8] * 32)


def test_a_wider_register_takes_the_sign():
    body = "ld.global.s32 %rd7, [%rd5]; shr.u64 %rd7, %rd7, 32; st.global.u32 [%rd6], %rd7;"
    np.testing.assert_array_equal(result(body, INTEGERS, INTEGERS), np.where(INTEGERS < 0, -1, 0))


def test_vectors_travel_together():
    body = """
    mul.wide.u32 %rd3, %r1, 16; add.s64 %rd5, %rd1, %rd3; add.s64 %rd6, %rd2, %rd3;
    ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd5];
    st.global.v4.f32 [%rd6], {%f4, %f3, %f2, %f1};
    """
    numbers = np.arange(128, dtype=np.float32)
    np.testing.assert_array_equal(result(body, numbers), numbers.reshape(32, 4)[:, ::-1].ravel())


def test_blocks_and_lanes_add_to_one_number():
    body = "ld.global.f32 %f1, [%rd5]; red.global.add.f32 [%rd2+8], %f1;"
    np.testing.assert_array_equal(result(body, NUMBERS, np.zeros(4, np.float32), grid=3), [0, 0, 3 * NUMBERS.sum(), 0])


EXCHANGE = """
ld.global.f32 %f1, [%rd5];
st.shared.f32 [%r2], %f1;
{barrier}
xor.b32 %r3, %r1, {distance};
shl.b32 %r3, %r3, 2;
cvt.u32.u64 %r4, %rd9;
add.s32 %r3, %r3, %r4;
ld.shared.f32 %f2, [%r3];
st.global.f32 [%rd6], %f2;
"""


@pytest.mark.parametrize(("barrier", "distance"), [("bar.warp.sync -1;", 1), ("bar.sync 0;", 1), ("bar.sync 0;", 32)])
def test_barriers_make_shared_memory_common(barrier, distance):
    found = result(EXCHANGE.format(barrier=barrier, distance=distance), np.arange(64, dtype=np.float32), threads=64)
    np.testing.assert_array_equal(found, np.arange(64) ^ distance)


@pytest.mark.parametrize(
    ("barrier", "distance", "message"),
    [
        ("", 1, r"no barrier of the warp between lane \d+ at `(ld|st).shared.f32"),
        ("", 32, "no barrier of the warp"),
        ("bar.warp.sync -1;", 32, r"no barrier of the block between warp \d at `(ld|st).shared.f32"),
    ],
)
def test_missing_barriers_are_found(barrier, distance, message):
    with pytest.raises(PtxError, match=message):
        result(EXCHANGE.format(barrier=barrier, distance=distance), np.arange(64, dtype=np.float32), threads=64)


def test_shared_memory_begins_with_nan_in_every_block():
    body = "ld.shared.f32 %f1, [%r2]; st.global.f32 [%rd6], %f1; ld.global.f32 %f1, [%rd5]; st.shared.f32 [%r2], %f1;"
    assert np.isnan(result(body, NUMBERS, NUMBERS, grid=2)).all()


COPIES = """
cp.async.ca.shared.global [%r2], [%rd5], 4;
cp.async.commit_group;
add.s32 %r3, %r2, 128;
cp.async.ca.shared.global [%r3], [%rd5+128], 4;
cp.async.commit_group;
cp.async.wait_group {pending};
ld.shared.f32 %f1, [%r2];
ld.shared.f32 %f2, [%r3];
st.global.f32 [%rd6], %f1;
st.global.f32 [%rd6+128], %f2;
"""


@pytest.mark.parametrize(("pending", "arrived"), [(0, 64), (1, 32), (2, 0)])
def test_asynchronous_copies_arrive_when_they_are_waited_for(pending, arrived):
    numbers, memory = np.arange(64, dtype=np.float32), GlobalMemory()
    addresses, (_, found) = zip(*(memory.place(a) for a in (numbers, np.zeros_like(numbers))), strict=True)
    run(KERNEL.format(body=COPIES.format(pending=pending)), (1, 1, 1), (32, 1, 1), 256, addresses, memory)
    np.testing.assert_array_equal(found, np.where(numbers < arrived, numbers, np.nan))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.f32 %f1, [%rd5+4];", r"`ld.global.f32 %f1, \[%rd5\+4\];`: address 0x\w+ of lane 31 is outside"),
        ("ld.global.f32 %f1, [%rd5+-4];", "of lane 0 is outside"),
        ("st.global.f64 [%rd5], %fd1;", "lane 1 is not aligned to 8 bytes"),
        ("st.shared.f32 [%r2+4], %f1;", "lane 31 is outside of the block's 128 bytes"),
        ("cvt.u32.u64 %r3, %rd1; ld.global.u32 %r4, [%r3];", "is outside of all arrays"),
        ("cp.async.cg.shared.global [%r2], [%rd1], 16;", "not aligned to 16 bytes"),
        ("setp.eq.u32 %p1, %r1, 0; @%p1 bra $one; bar.warp.sync -1; $one: bar.warp.sync -1;", "wait for each other"),
        ("$loop: bra.uni $loop;", "has no end"),
        ("tex.2d.v4.f32 %f1, [%rd1];", "unknown instruction: tex.2d"),
        ("sin.approx.f32 %f1, %f2;", "unknown instruction: sin.approx"),
        ("cvt.u8.u32 %r3, %r1;", "unknown instruction: cvt.u8"),
        ("add.s32 %r3, %r1, %clock;", "neither a register nor a number: %clock"),
    ],
)  # fmt: skip
def test_mistakes_are_named(body, message, monkeypatch):
    monkeypatch.setattr("tests.ptx_machine.MOST_RUNS", 1000)
    with pytest.raises(PtxError, match=message):
        result(body, NUMBERS)
