"""Copies many short pieces of a file with one call of the operating system, on Linux."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from functools import cache

import numpy as np
from numpy.typing import NDArray

_MOST_PIECES = 1024  # the limit of Linux (IOV_MAX)


class MappedRows:
    """Reads rows of one size at any places of a file, by any number of threads.

    The file is mapped into memory, and ``process_vm_readv`` copies from there. If the disk fails or
    the file becomes shorter, the call copies fewer rows, where an access to the map would end the
    process. The call runs without Python's lock, so several threads copy at the same time.

    Args:
        number: Descriptor of a file that is open for reading. It is needed only during a call.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._bytes: NDArray[np.uint8] = np.empty(0, np.uint8)

    def copy(self, places: NDArray[np.int64], rows: NDArray[np.generic]) -> int:
        """Fill rows of a contiguous array ``[n, D]`` with the bytes from each place on.

        Returns:
            The number of rows that were filled, from the first on. It is less than ``n`` if a piece
            cannot be read, and zero if the system does not offer the call.
        """
        call, size = _process_vm_readv(), rows.strides[0]
        mapped = self._mapped(int(places[-1]) + size) if call and len(places) else None
        if call is None or mapped is None:
            return 0
        pieces = np.empty((len(places), 2), np.uintp)
        pieces[:, 0] = places + mapped.ctypes.data
        pieces[:, 1] = size
        for start in range(0, len(places), _MOST_PIECES):
            part = pieces[start : start + _MOST_PIECES]
            target = np.array([rows.ctypes.data + start * size, len(part) * size], np.uintp)
            copied = call(os.getpid(), target.ctypes.data, 1, part.ctypes.data, len(part), 0)
            if copied != len(part) * size:
                return start + int(max(copied, 0)) // size
        return len(places)

    def _mapped(self, size: int) -> NDArray[np.uint8] | None:
        """The bytes of the file, at least ``size``; None if they cannot be mapped."""
        with self._lock:
            if len(self._bytes) < size:
                try:
                    mapped = mmap.mmap(self._number, 0, access=mmap.ACCESS_READ)
                except (OSError, ValueError):
                    return None
                if len(mapped) < size:
                    return None
                self._bytes = np.frombuffer(mapped, np.uint8)
            return self._bytes


@cache
def _process_vm_readv() -> ctypes._NamedFuncPointer | None:
    """The call, if this system has it and allows it."""
    try:
        call = ctypes.CDLL(None).process_vm_readv
    except (AttributeError, OSError, TypeError):
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_ulong
    call.argtypes = [ctypes.c_int, pointer, size, pointer, size, size]
    call.restype = ctypes.c_ssize_t
    return call
