"""Large blocks come from the heap, which keeps them, and large tensors begin with a page, once told so."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from gpenvid.gpen.memory import LARGE_PAGES, spend_memory_for_time

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


LARGE_TENSOR = """
import sys
from gpenvid.gpen.memory import spend_memory_for_time
if "spend" in sys.argv:
    spend_memory_for_time()
import torch
blocks = [torch.empty((2 << 20) + 4096 * step, dtype=torch.uint8) for step in range(9)]
sys.exit(int(all(block.data_ptr() % 4096 == 0 for block in blocks)))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="concerns Linux alone")
def test_large_tensors_begin_with_a_page() -> None:
    environment = {name: value for name, value in os.environ.items() if name != LARGE_PAGES}
    aligned = [
        subprocess.run([sys.executable, "-c", LARGE_TENSOR, word], env=environment).returncode
        for word in ("default", "spend")
    ]
    assert aligned == [0, 1]


def test_what_the_user_chose_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LARGE_PAGES, "0")
    spend_memory_for_time()
    assert os.environ[LARGE_PAGES] == "0"
