"""How this process gets and returns memory."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>
_MOST = 16 * 2**30
_HUGE = 2 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next arrays instead of giving it back to the system, in huge pages where allowed.

    Activations of tens of megabytes are otherwise mapped, zeroed and unmapped at every step: 200,000 page faults, 18 % of
    a training step's processor time; the doctor's image pyramids likewise. Peak memory stays the same. Returns whether it
    could be set (Linux with glibc).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20))
        kept = all(libc.mallopt(*setting) == 1 for setting in settings)
        if kept:
            _prefer_huge_pages(libc)
    except (OSError, AttributeError):
        return False
    return kept


def return_freed_memory() -> bool:
    """Undo `keep_freed_memory`: give back what is free now, and from here on what will be, also in processes that are forked.

    Returns whether it could be done.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = ((_MMAP_MAX, 65_536), (_TRIM_THRESHOLD, 128 * 2**10), (_TOP_PAD, 128 * 2**10))  # glibc's own
        back = all(libc.mallopt(*setting) == 1 for setting in settings)
    except (OSError, AttributeError):
        return False
    return trim() and back


def trim() -> bool:
    """Give the memory that is free now back to the system; settings stay as they are.

    Without it glibc keeps what a thread has freed, so that a server which has replaced a model seems to hold both.
    Returns whether it could be done (Linux with glibc).
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return False
    return True


def _prefer_huge_pages(libc: ctypes.CDLL) -> None:
    """Of the heap still to come: a training step takes another 5 to 8 % less (docs/benchmarks.md).

    The heap grows once by addresses, not by memory: what is not touched costs nothing, and stays part of the heap since
    nothing is given back. The advice holds for addresses that exist, so it cannot be given without growing first.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = min(_MOST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    heap = libc.malloc(size)
    if heap is None:  # a limit on addresses, or a system that promises no more than it has
        return
    first = -(-heap // _HUGE) * _HUGE
    madv_hugepage = 14  # <sys/mman.h>
    libc.madvise(first, (heap + size - first) // _HUGE * _HUGE, madv_hugepage)
    libc.free(heap)
