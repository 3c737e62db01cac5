"""Reads and writes of a file at given positions, by any number of threads.

On Linux, many short pieces are read by one call of the operating system.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MOST_PIECES = 1024  # the limit of Linux (IOV_MAX)


class PositionedFile:
    """An open file. Reads and writes have no common position.

    Args:
        path: Path of an existing file.
        writable: Whether it may be written.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        flags = os.O_RDWR if writable else os.O_RDONLY
        self._number = os.open(path, flags | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        self._mapped = MappedRows(self._number)
        self._gathering = threading.Lock()

    def close(self) -> None:
        if self._number >= 0:
            os.close(self._number)
            self._number = -1

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            self.close()

    def is_at(self, path: Path) -> bool:
        """Whether this is the file at a path."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._number))
        except OSError:
            return False

    def size(self) -> int:
        return os.fstat(self._number).st_size

    def last_written(self) -> int:
        """When the file was last written, in nanoseconds since 1970."""
        return os.fstat(self._number).st_mtime_ns

    def resize(self, size: int) -> None:
        """Cut the file off, or lengthen it by zeros."""
        os.ftruncate(self._number, size)

    def sync(self) -> None:
        """Flush what was written to the disk."""
        getattr(os, "fdatasync", os.fsync)(self._number)  # without the time of the change

    def read_into(self, at: int, array: NDArray[np.generic]) -> None:
        """Fill a contiguous array with the bytes from a position on.

        Raises:
            OSError: The file cannot be read, or ends before.
        """
        view = array.data
        count = self._read(at, view)
        while count < view.nbytes:
            view, at = view.cast("B")[count:], at + count
            count = self._read(at, view)
            if not count:
                raise OSError(f"{self.path.name} ends {view.nbytes} bytes early")
            at, view = at + count, view[count:]

    def gather(self, places: NDArray[np.int64], rows: NDArray[np.generic]) -> None:
        """Fill each row of a contiguous array ``[n, D]`` with the bytes from a position on.

        Args:
            places: The positions, ascending, ``[n]``.
            rows: The array.

        Raises:
            OSError: The file cannot be read, or ends before.
        """
        copied = self._mapped.copy(places, rows)
        if copied < len(rows):
            # Each short read gives other threads their turn, so two threads would wait for each
            # other at every row.
            with self._gathering:
                for at, row in zip(places[copied:].tolist(), rows[copied:], strict=True):
                    self.read_into(at, row)

    def write(self, at: int, data: NDArray[np.generic]) -> None:
        """Write the bytes of a contiguous array at a position."""
        view = data.data.cast("B")
        while view.nbytes:
            count = self._write(at, view)
            at, view = at + count, view[count:]

    def _read(self, at: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._number, [view], at)
        with self._lock:  # Windows
            os.lseek(self._number, at, os.SEEK_SET)
            data = os.read(self._number, view.nbytes)
        if data:
            view.cast("B")[: len(data)] = data
        return len(data)

    def _write(self, at: int, view: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._number, view, at)
        with self._lock:
            os.lseek(self._number, at, os.SEEK_SET)
            return os.write(self._number, view)


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
        # Rows that follow each other in the file are one piece.
        gaps = np.flatnonzero(places[1:] - places[:-1] != size) + 1
        firsts, ends = np.concatenate([[0], gaps]), np.concatenate([gaps, [len(places)]])
        pieces = np.empty((len(firsts), 2), np.uintp)
        pieces[:, 0] = places[firsts] + mapped.ctypes.data
        pieces[:, 1] = (ends - firsts) * size
        for start in range(0, len(firsts), _MOST_PIECES):
            part = pieces[start : start + _MOST_PIECES]
            first, wanted = int(firsts[start]), int(part[:, 1].sum())
            target = np.array([rows.ctypes.data + first * size, wanted], np.uintp)
            copied = call(os.getpid(), target.ctypes.data, 1, part.ctypes.data, len(part), 0)
            if copied != wanted:
                return first + int(max(copied, 0)) // size
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
