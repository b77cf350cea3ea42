"""Loops over a few numbers, for which a call of numpy takes longer than the arithmetic, made machine code by numba.

A function is compiled when it is first called, once for an installation: numba keeps the code beside the source, or in
the user's cache. What it keeps is as old as the file of the function; so a compiled function calls only compiled ones
of its own file, and of this one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Make machine code of a function of arrays and numbers, for every combination of their types."""
    fast = njit(function, nogil=True, error_model="numpy")
    with suppress(RuntimeError):  # where there is no place where it could be kept
        fast._cache = _Kept(function)
    return cast(Function, fast)


class _Kept(FunctionCache):
    """What numba keeps: as good as missing where it is damaged, and made again next time where it can't be written."""

    def load_overload(self, *what: Any) -> Any:
        """The machine code for one combination of types, None if there is none."""
        try:
            return super().load_overload(*what)
        except Exception as error:  # a damaged pickle may raise anything
            log.debug("%s: %s", self.cache_path, error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *what: Any) -> None:
        """Keep it."""
        with suppress(OSError):
            super().save_overload(*what)


@lru_cache
def warn_of_compiling(function: Any) -> None:
    """Say, once, that there will be a wait, if no earlier run has left the machine code of a compiled function."""
    kept = function.stats.cache_path
    name = f"*.{function.py_func.__name__}-*.py{sys.version_info.major}{sys.version_info.minor}*.nbi"
    if not kept or not any(Path(kept).glob(name)):
        log.warning("compiling the tracker, which is done once: about ten seconds")


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
