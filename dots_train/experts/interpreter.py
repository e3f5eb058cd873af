"""bfloat16 in Triton's interpreter (TRITON_INTERPRET=1: kernels on the CPU, slowly), which holds it as 16-bit integers:
it multiplies those in a product, and cuts floats off where a GPU rounds to the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def widened(data: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The bits of bfloat16 as floats."""
    return (data.astype(np.uint32) << 16).view(np.float32)


def rounded(data: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Floats as the bits of the nearest bfloat16, of two the even one."""
    bits = np.ascontiguousarray(data).view(np.uint32).reshape(data.shape)
    nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(data), np.uint16(0x7FC0), nearest)


def correct() -> None:
    """Have the interpreter treat bfloat16 as a GPU does, from now on in this process."""
    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        match src.dtype.scalar, dst_type.scalar:
            case tl.bfloat16, tl.float32:
                return TensorHandle(widened(src.data), tl.float32)
            case tl.float32, tl.bfloat16:
                return TensorHandle(rounded(src.data), tl.bfloat16)
        return cast(self, src, dst_type)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, cast_impl(self, a, tl.float32), cast_impl(self, b, tl.float32), *rest)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot = cast_impl, create_dot
