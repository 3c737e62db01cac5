"""Keeps freed memory in the process during training, so that no step maps it again."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""glibc accepts no larger value; it maps and unmaps each larger tensor."""
_NEVER = 2**31 - 1
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in the process while the context is open.

    By default, glibc gives memory back to the system when more than a few megabytes are free.
    A training step frees its activations and gradients and allocates the same amount again, and
    the system fills each new page with zeros. For a small model on a CPU this takes a tenth of the
    step. See ``man 3 mallopt``.

    Other C libraries, and users who set one of glibc's own variables, are not affected.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SETTINGS):
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        # The value that glibc itself reaches after it has freed a tensor of this size.
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)
