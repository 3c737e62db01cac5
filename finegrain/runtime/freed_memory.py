"""Memory that was freed, and that the C library keeps."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def return_freed_memory() -> None:
    """Return freed memory to the operating system.

    glibc keeps it for later, about as much as an index takes whose parts were made with temporary
    arrays of the same size. Other C libraries return it themselves.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
