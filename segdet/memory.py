"""How this process gets and returns memory."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next arrays instead of giving it back to the system.

    Activations of tens of megabytes are otherwise mapped, zeroed and unmapped at every step: 200,000 page faults, 18 % of
    a training step's processor time; the doctor's image pyramids likewise. Peak memory stays the same. Returns whether it
    could be set (Linux with glibc).
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((m_mmap_max, 0), (m_trim_threshold, -1), (m_top_pad, 256 * 2**20))
    return all(mallopt(*setting) == 1 for setting in settings)
