"""Large blocks come from the heap, which keeps them, once told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ABOVE_THE_HEAP = """
import ctypes, sys
from gpenvid.gpen.memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
if "keep" in sys.argv:
    assert keep_freed_memory()
block = libc.malloc(48 << 20)
sys.exit(int(block > libc.sbrk(0)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="concerns glibc alone")
def test_large_blocks_come_from_the_heap() -> None:
    mapped = [subprocess.run([sys.executable, "-c", ABOVE_THE_HEAP, word]).returncode for word in ("default", "keep")]
    assert mapped == [1, 0]
