"""Machine code in the threads that PyTorch's own operators run in.

Threads of our own would take turns with PyTorch's, which go on spinning for a while after each operator: on a machine
with as many threads as cores both lose more than they gain. So PyTorch's OpenMP is asked, by the function that
compilers call for `#pragma omp parallel`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def run(body: Any, job: NDArray[np.void]) -> None:
    """Call a function of `native.c_function` with the job, (1,), in as many threads as PyTorch has, at once.

    The threads share the job: the function takes pieces of it by `native.claim` until none is left. Where PyTorch's
    threads can't be had, the calling thread does it all.
    """
    threads = torch.get_num_threads() if available() else 1
    if threads == 1:
        body.ctypes(job.ctypes.data)
    else:
        _parallel()(body.address, job.ctypes.data, threads, 0)


def available() -> bool:
    """Whether PyTorch's threads can be had: those of GNU's, LLVM's and Intel's OpenMP on Linux."""
    return _parallel() is not None


@cache
def _parallel() -> Any:
    """GOMP_parallel of the OpenMP that PyTorch is linked to, found among what PyTorch's library depends on."""
    try:
        parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return parallel
