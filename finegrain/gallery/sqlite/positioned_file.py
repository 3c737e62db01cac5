"""Reads and writes of a file at given positions, by any number of threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finegrain.gallery.sqlite.mapped_rows import MappedRows


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
