"""Memory that a model frees after each batch stays with the process, for the next one."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM, _PAD, _MAP = -1, -2, -3
"""`M_TRIM_THRESHOLD`, `M_TOP_PAD` and `M_MMAP_THRESHOLD` of glibc's malloc.h (mallopt(3))."""
_LARGE = 32 << 20
"""Bytes: the most that glibc takes for `M_MMAP_THRESHOLD`."""


def keep_memory() -> None:
    """Take large pieces from the heap, and return nothing of it to the system below 256 MiB.

    A forward pass frees buffers of megabytes, which malloc by default gives back; the next batch then has
    every page of them cleared by the kernel again. For a small student that was a quarter of the server's
    time. Resident memory stays at what the largest batch needed.
    """
    # Another C library than glibc has other habits, and no such function.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MAP, _LARGE), (_TRIM, 8 * _LARGE), (_PAD, _LARGE)):
            mallopt(option, value)
