"""Sixteen float32 as one value of machine code: what processors compute at once.

Left to itself, the compiler behind numba makes use of such instructions only where it can prove that nothing overlaps,
and leaves them for single numbers when a loop is short. Written with this type they are sure, on any processor: one
that computes fewer at once does it in several steps.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import overload, register_model

from gpenvid.native import instruction

WIDTH = 16

_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_FLAGS = ("contract",)  # a product and the sum that it goes into may be one instruction


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, _VECTOR)


def _place(builder: Any, pointer: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [at]), _VECTOR.as_pointer())


@instruction
def load(_: Any, pointer: Any, at: Any) -> Any:
    """The elements of a pointer to float32 from `at` on."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.load(_place(builder, *arguments), align=4)

    return LANES(pointer, types.intp), generate


@instruction
def store(_: Any, pointer: Any, at: Any, value: Any) -> Any:
    """Write the elements from `at` on."""

    def generate(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(builder, *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.none(pointer, types.intp, value), generate


@instruction
def spread(_: Any, value: Any) -> Any:
    """A number in all lanes."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))

    return LANES(types.float32), generate


@instruction
def larger(_: Any, a: Any, b: Any) -> Any:
    """The larger of each pair."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return LANES(a, b), generate


@instruction
def total(_: Any, value: Any) -> Any:
    """The sum over the lanes."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        (x,), width = arguments, WIDTH
        while width > 1:
            width //= 2
            halves = [ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(i, i + width))) for i in (0, width)]
            x = builder.fadd(*(builder.shuffle_vector(x, x, half) for half in halves))
        return builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

    return types.float32(value), generate


def _arithmetic(operation: Any, opcode: str) -> None:
    @instruction
    def both(_: Any, a: Any, b: Any) -> Any:
        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return getattr(builder, opcode)(*arguments, flags=_FLAGS)

        return LANES(LANES, LANES), generate

    def lanes(a, b):  # type: ignore[no-untyped-def]  # numba compares it with what it returns
        return (lambda a, b: both(a, b)) if a is LANES and b is LANES else None

    overload(operation)(lanes)


for _operation, _opcode in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _arithmetic(_operation, _opcode)
