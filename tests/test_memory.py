"""How a training process keeps its memory; each in a process of its own, since these settings stay."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource
import numpy as np
import psutil
from segdet.memory import keep_freed_memory, return_freed_memory

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert keep_freed_memory()
print("reserved", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
np.ones(25_000_000)
first = pages()
for _ in range(5):
    np.ones(25_000_000)
print("again", pages() - first)
assert return_freed_memory()
print("left", (psutil.Process().memory_info().rss // 1024 - before) // 1024)
np.ones(25_000_000)
print("later", (psutil.Process().memory_info().rss // 1024 - before) // 1024)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_memory_is_kept_and_what_is_not_touched_costs_nothing() -> None:
    """Five arrays of 200 MB would fault 240,000 pages if they were given back each time."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    figures = dict(line.split() for line in done.stdout.splitlines())
    assert int(figures["reserved"]) < 50, "MB"
    assert int(figures["again"]) < 1000
    assert int(figures["left"]) < 100 and int(figures["later"]) < 100, "MB, where 200 were free"


_PIECES = """
import numpy as np
import psutil
from segdet.memory import trim

def held():
    return psutil.Process().memory_info().rss >> 20

before = held()
arrays = [np.ones(12_500) for _ in range(2000)]  # 100 kB each: too small to be returned one by one
kept = arrays[-1]
del arrays
print("freed", held() - before)
assert trim()
print("trimmed", held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_freed_pieces_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _PIECES], capture_output=True, text=True, check=True)
    figures = dict(line.split() for line in done.stdout.splitlines())
    assert int(figures["freed"]) > 150 and int(figures["trimmed"]) < 20, "MB"
