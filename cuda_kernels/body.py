"""Straight-line arithmetic as LLVM IR: what `polynomial.evaluate_path` calls when it generates a kernel.

A value is a scalar or a vector of channels; an operation on both broadcasts the scalar. Used by the CUDA and the CPU
kernels alike.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

SCALAR = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


class Arithmetic:
    """Multiply-adds of one precision, appended to an LLVM builder's block."""

    def __init__(self, builder: ir.IRBuilder, dtype: str):
        self.builder = builder
        self.dtype = dtype
        self.scalar = SCALAR[dtype]

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.scalar, float(np.dtype(self.dtype).type(value)))

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(*self.broadcast(a, b))

    def add(self, a: ir.Value, b: ir.Value | None) -> ir.Value:
        """a + b, where b may be None for zero."""
        return a if b is None else self.builder.fadd(*self.broadcast(a, b))

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value | None) -> ir.Value:
        """a * b + c, rounded once; c may be None for zero."""
        if c is None:
            return self.mul(a, b)
        a, b, c = self.broadcast(a, b, c)
        fma = declare(self.builder.module, f"llvm.fma.{suffix(a.type)}", a.type, [a.type] * 3)
        return self.builder.call(fma, [a, b, c])

    def negate(self, a: ir.Value) -> ir.Value:
        return self.builder.fsub(*self.broadcast(self.constant(-0.0), a))  # NVVM's dialect of LLVM has no fneg

    def broadcast(self, *values: ir.Value) -> list[ir.Value]:
        """The values, scalars repeated to the width of the vectors among them."""
        vector = next((value.type for value in values if isinstance(value.type, ir.VectorType)), None)
        return [self.splat(value, vector) if vector and value.type != vector else value for value in values]

    def splat(self, value: ir.Value, vector: ir.VectorType) -> ir.Value:
        if isinstance(value, ir.Constant):
            return ir.Constant(vector, [value.constant] * vector.count)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(
            one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        )


def declare(module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """The declaration of an LLVM intrinsic in this module."""
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def suffix(kind: ir.Type) -> str:
    """What an overloaded LLVM intrinsic's name ends in for this type, such as v8f32."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{suffix(kind.element)}"
    return {ir.FloatType: "f32", ir.DoubleType: "f64"}[type(kind)]
