"""The CUDA kernels of gated nonlinearities: a thread takes one unit of one row.

With the activation f of a scalar a, its product f(a) x with components x, cotangents v of the output and w of the
gradient:

    forward            y = f(a) x
    backward           x' = v f(a),              a' = sum v x f'(a)
    double backward    v' = w f(a) + w_a x f'(a), x' = w_a v f'(a), a' = sum w v f'(a) + w_a v x f''(a)

and where f(a) goes to the output itself, the same with x = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import cuda
from numba.cuda import types

from ..gate import Gains, Kind, Order
from .binary import GATE_THREADS, Binary
from .compile import assembly, machine_code

OPERANDS = {Order.FORWARD: 2, Order.BACKWARD: 3, Order.DOUBLE_BACKWARD: 5}


def kernel_of(order: Order, dtype: str, gains: Gains) -> Callable:
    """The kernel; grid: blocks of `GATE_THREADS` threads, one thread for each unit of each row.

    Its arguments are the rows that are read and written, in the order x, y; x, v, x'; x, v, w, v', x'; then the table
    of units (see `gate.table`), the number of threads, of units, and of numbers in a row of the input and the output.
    """
    return {Order.FORWARD: _forward, Order.BACKWARD: _backward, Order.DOUBLE_BACKWARD: _double_backward}[order](
        getattr(np, dtype), gains
    )


def _forward(number: type, gains: Gains) -> Callable:
    u32, u64, tanh = np.uint32, np.uint64, int(Kind.TANH)
    one, silu_gain, tanh_gain = number(1), number(gains.silu), number(gains.tanh)

    def kernel(x, y, table, count, units, length_in, length_out):
        thread = u32(u32(cuda.blockIdx.x) * u32(cuda.blockDim.x) + u32(cuda.threadIdx.x))
        if thread >= count:
            return
        row = u32(thread // units)
        unit = u32(thread - row * units)
        own, out = u64(row) * length_in, u64(row) * length_out
        first_out, first_in = table[u32(unit + u32(2) * units)], table[u32(unit + u32(3) * units)]
        stride, dim = table[u32(unit + u32(4) * units)], table[u32(unit + u32(5) * units)]
        a = x[own + table[u32(unit + units)]]
        f = tanh_gain * math.tanh(a) if table[unit] == tanh else silu_gain * a / (one + math.exp(-a))
        if dim == u32(0):
            y[out + first_out] = f
        for m in range(dim):
            y[out + first_out + u32(m) * stride] = f * x[own + first_in + u32(m) * stride]

    return kernel


def _backward(number: type, gains: Gains) -> Callable:
    u32, u64, tanh = np.uint32, np.uint64, int(Kind.TANH)
    one, silu_gain, tanh_gain = number(1), number(gains.silu), number(gains.tanh)

    def kernel(x, v, by_x, table, count, units, length_in, length_out):
        thread = u32(u32(cuda.blockIdx.x) * u32(cuda.blockDim.x) + u32(cuda.threadIdx.x))
        if thread >= count:
            return
        row = u32(thread // units)
        unit = u32(thread - row * units)
        own, out = u64(row) * length_in, u64(row) * length_out
        scalar = table[u32(unit + units)]
        first_out, first_in = table[u32(unit + u32(2) * units)], table[u32(unit + u32(3) * units)]
        stride, dim = table[u32(unit + u32(4) * units)], table[u32(unit + u32(5) * units)]
        a = x[own + scalar]
        if table[unit] == tanh:
            t = math.tanh(a)
            f, slope = tanh_gain * t, tanh_gain * (one - t * t)
        else:
            s = one / (one + math.exp(-a))
            f, slope = silu_gain * (a * s), silu_gain * (s * (one + a * (one - s)))
        if dim == u32(0):
            by_x[own + scalar] = v[out + first_out] * slope
        else:
            total = number(0)
            for m in range(dim):
                cotangent, place = v[out + first_out + u32(m) * stride], own + first_in + u32(m) * stride
                total += cotangent * x[place]
                by_x[place] = cotangent * f
            by_x[own + scalar] = total * slope

    return kernel


def _double_backward(number: type, gains: Gains) -> Callable:
    u32, u64, tanh = np.uint32, np.uint64, int(Kind.TANH)
    one, two, silu_gain, tanh_gain = number(1), number(2), number(gains.silu), number(gains.tanh)

    def kernel(x, v, w, by_v, by_x, table, count, units, length_in, length_out):
        thread = u32(u32(cuda.blockIdx.x) * u32(cuda.blockDim.x) + u32(cuda.threadIdx.x))
        if thread >= count:
            return
        row = u32(thread // units)
        unit = u32(thread - row * units)
        own, out = u64(row) * length_in, u64(row) * length_out
        scalar = table[u32(unit + units)]
        first_out, first_in = table[u32(unit + u32(2) * units)], table[u32(unit + u32(3) * units)]
        stride, dim = table[u32(unit + u32(4) * units)], table[u32(unit + u32(5) * units)]
        a, of_scalar = x[own + scalar], w[own + scalar]
        if table[unit] == tanh:
            t = math.tanh(a)
            f, slope = tanh_gain * t, tanh_gain * (one - t * t)
            curvature = -two * t * slope
        else:
            s = one / (one + math.exp(-a))
            f, slope = silu_gain * (a * s), silu_gain * (s * (one + a * (one - s)))
            curvature = silu_gain * (s * (one - s) * (two + a - two * a * s))
        if dim == u32(0):
            by_v[out + first_out] = of_scalar * slope
            by_x[own + scalar] = of_scalar * v[out + first_out] * curvature
        else:
            total = number(0)
            for m in range(dim):
                at, place = out + first_out + u32(m) * stride, own + first_in + u32(m) * stride
                by_v[at] = w[place] * f + of_scalar * x[place] * slope
                by_x[place] = of_scalar * v[at] * slope
                total += v[at] * (w[place] * slope + of_scalar * x[place] * curvature)
            by_x[own + scalar] = total

    return kernel


def compile_gate(order: Order, dtype: str, gains: Gains, compute_capability: tuple[int, int]) -> Binary:
    """Machine code; needs no GPU."""
    text = gate_assembly(order, dtype, gains, compute_capability)
    return Binary(machine_code(text, compute_capability), 1, (GATE_THREADS, 1, 1), 0)


def gate_assembly(order: Order, dtype: str, gains: Gains, compute_capability: tuple[int, int]) -> str:
    """The kernel as PTX."""
    rows = [types.CPointer(getattr(types, dtype))] * OPERANDS[order]
    arguments = [*rows, types.CPointer(types.uint32), *[types.uint32] * 4]
    return assembly(kernel_of(order, dtype, gains), arguments, (GATE_THREADS, 1), compute_capability)
