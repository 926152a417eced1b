"""Freed memory is kept for the next step instead of being given back to the system.

A training step on a processor frees gigabytes in large blocks. glibc gives each back at once, and the next step waits
while the kernel clears every page of it again.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of glibc's ``mallopt``."""

KEPT = 2**31 - 1
"""Bytes that may lie free at the top: all that the parameter can say."""

GROWTH = 256 * 2**20
"""Bytes that are asked of the system at once."""


def keep_freed_memory() -> bool:
    """Tells this process's allocator to keep what is freed; whether it could be told (glibc only)."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, KEPT), (TOP_PAD, GROWTH))
    taken = [mallopt(number, value) for number, value in settings]
    return all(taken)
