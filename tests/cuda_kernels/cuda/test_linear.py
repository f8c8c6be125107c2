"""What the assembler makes of the kernels of linear maps."""

import pytest

pytest.importorskip("numba_cuda", reason="the CUDA kernels' compiler is not installed")

from cuda_kernels.cuda import linear
from cuda_kernels.linear import Part
from tests.emulated import linear_assembly


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("part", [Part.MAP, *(pytest.param(p, marks=pytest.mark.slow) for p in list(Part)[1:])])
def test_numbers_stay_in_registers_and_are_read_sixteen_bytes_at_a_time(part, dtype, monkeypatch):
    monkeypatch.setattr(linear, "linear_assembly", linear_assembly)
    binary = linear.compile_linear(part, dtype, (9, 0))
    assert binary.stack_bytes == 0
    assert 64 < binary.registers <= 255
    assert binary.block[0] * binary.block[1] * binary.registers <= 65536
    text = linear_assembly(part, dtype, (9, 0))
    assert ".local" not in text
    assert text.count("ld.shared.v4.f32" if dtype == "float32" else "ld.shared.v2.f64") >= 8
    assert "atom." not in text
    assert "red.global" not in text
