"""Loops that neither numpy nor PyTorch does well, made machine code by numba.

A function is compiled when it is first called, once for an installation: numba keeps the code beside the source, or in
the user's cache, for as long as no file of the function's folder changes; so a compiled function calls only compiled
ones of its own folder, and of this file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import from_dtype, njit, types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.extending import intrinsic
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

instruction = cast(Callable[[Callable[..., Any]], Callable[..., Any]], intrinsic)
"""A function of compiled code that is given by how its types and its instructions are made."""


def compiled(function: Function) -> Function:
    """Make machine code of a function of arrays and numbers, for every combination of their types."""
    return _kept(njit(function, nogil=True, error_model="numpy"), function)


def inlined(function: Function) -> Function:
    """As `compiled`, but made part of each compiled function that calls it."""
    return _kept(njit(function, nogil=True, error_model="numpy", forceinline=True), function)


def _kept(fast: Any, function: Function) -> Function:
    with suppress(RuntimeError):  # where there is no place where it could be kept
        fast._cache = _Kept(function)
    return cast(Function, fast)


def c_function(function: Callable[..., None], job: np.dtype[Any]) -> CFunc:
    """Make machine code of a function of a pointer to a record, that C can call from any thread.

    It is compiled at once. The record's first field, an int64, is what `claim` counts.
    """
    made = CFunc(function, ((types.CPointer(from_dtype(job)),), types.void), {}, {"error_model": "numpy"})
    _kept(made, function)
    made.compile()
    return made


@instruction
def claim(_: Any, job: Any) -> Any:
    """Count the first field of the record that `job` points to up by one; return what it was before.

    Threads that call it at the same time get different numbers.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        counter = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(job), generate


@instruction
def floats_at(_: Any, address: Any) -> Any:
    """The address, an integer, as a pointer to float32."""
    pointer = types.CPointer(types.float32)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(address), generate


class _Kept(FunctionCache):
    """What numba keeps: as good as missing where it is damaged, and made again next time where it can't be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename).parent)

    def load_overload(self, *what: Any) -> Any:
        """The machine code for one combination of types, None if there is none."""
        try:
            return super().load_overload(*what)
        except Exception as error:  # a damaged pickle may raise anything
            log.debug("%s: %s", self.cache_path, error)
            with suppress(OSError):
                self.flush()
            return None

    def holds_any(self) -> bool:
        """Whether there is machine code that would be loaded."""
        try:
            return bool(self._cache_file._load_index())
        except Exception:  # as above
            return False

    def save_overload(self, *what: Any) -> None:
        """Keep it."""
        with suppress(OSError):
            super().save_overload(*what)


@lru_cache
def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes with any file of a folder, and with this one."""
    files = {path: path.stat() for path in (*sorted(folder.glob("*.py")), Path(__file__))}
    return tuple((path.name, stat.st_mtime_ns, stat.st_size) for path, stat in files.items())


@lru_cache
def warn_of_compiling(function: Callable[..., Any], what: str, wait: str) -> None:
    """Say, once, that there will be a wait, if no earlier run has left the machine code of a compiled function.

    what and wait: what is compiled with it, and how long that takes.
    """
    kept = getattr(function, "_cache", None)
    if not (isinstance(kept, _Kept) and kept.holds_any()):
        log.warning("compiling %s, which is done once: about %s", what, wait)


@compiled
def median_of_few(values: NDArray[np.float64]) -> float:
    """The median of a few values (n,), by insertion."""
    x = values.copy()
    for i in range(1, len(x)):
        j = i
        while j > 0 and x[j - 1] > values[i]:
            x[j] = x[j - 1]
            j -= 1
        x[j] = values[i]
    return 0.5 * float(x[(len(x) - 1) // 2] + x[len(x) // 2])
