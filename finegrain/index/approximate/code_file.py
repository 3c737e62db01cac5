"""The file of an approximate index, next to the gallery.

The file has a header of one page, the numbers that training has learned, and batches of rows. A
batch holds the ids of its rows, the CRC-32 of the vectors that were coded, a checksum of each row,
the codes, and what the structure of the index needs besides. Batches are in the order of ids and
never change, except that a deletion negates the id of a row and overwrites its code and checksums
with zeros.

A batch that was written only in part, or is damaged, ends the file: its rows and all later ones
are coded again. The file states nothing about the gallery. Its rows are compared with the ids and
checksums of the gallery's vectors instead, so a file of another gallery, or of an earlier moment,
is recognised row by row.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.index.estimate import Ids

BATCH_ROWS = 65_536
"""Most rows of a batch."""

FORMAT_VERSION = 1

_MAGIC = b"finegrain-codes\0"
_BATCH_MAGIC = b"finegrain-batch\0"
_HEADER = struct.Struct("<16sI16sQQII256s")
_BATCH = struct.Struct("<16sQQqqI")  # magic, rows, numbers, first and last id, checksum
_PAGE_BYTES = 4096
_OWNER_ONLY = 0o600
_ZERO_BYTES = 8 << 20

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Checksums = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]


class CodesInvalidError(GalleryError):
    """The file cannot be used, and the codes are made again from the vectors."""


class Batch(NamedTuple):
    """Rows of an index, in the order in which their codes are stored.

    Attributes:
        ids: Ids ``[n]``; negative if deleted.
        checksums: CRC-32 of the vectors that were coded, ``[n]``.
        codes: Codes ``[n, C]``.
        arrangement: What the structure needs besides codes, ``[m]``.
    """

    ids: Ids
    checksums: Checksums
    codes: Bytes
    arrangement: Numbers


class Header(NamedTuple):
    """The first page of a file.

    Attributes:
        token: Random number of the file.
        rows_then: Number of rows at training.
        num_learned: Number of numbers that training has learned.
        learned_checksum: Their CRC-32.
        code_bytes: Bytes of a code.
        settings: Kind of index, and what its codes depend on.
    """

    token: bytes
    rows_then: int
    num_learned: int
    learned_checksum: int
    code_bytes: int
    settings: bytes


class _Place(NamedTuple):
    """Where a batch is, and what it holds."""

    start: int
    num_rows: int
    num_arranged: int
    first_id: int
    last_id: int
    code_bytes: int

    @property
    def ids(self) -> int:
        return self.start + _BATCH.size + 4

    @property
    def checksums(self) -> int:
        return self.ids + 8 * self.num_rows

    @property
    def row_checksums(self) -> int:
        return self.checksums + 4 * self.num_rows

    @property
    def arrangement(self) -> int:
        return self.row_checksums + 4 * self.num_rows

    @property
    def codes(self) -> int:
        return self.arrangement + 4 * self.num_arranged + 4

    @property
    def end(self) -> int:
        return self.codes + self.code_bytes * self.num_rows


class CodeFile:
    """An open file of codes; one thread uses it at a time.

    Args:
        path: Path of an existing file.
        writable: Whether it may be written.

    Raises:
        CodesInvalidError: It is not a file of codes, has another format, or its header is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self._file: Any = path.open("r+b" if writable else "rb")
        try:
            self.header = _header_of(self._file.read(_PAGE_BYTES), path)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def create(
        cls, path: Path, settings: bytes, rows_then: int, learned: Floats, width: int
    ) -> Self:
        """Create a file without rows that only its owner may read; it replaces another file.

        Args:
            path: Path of the file.
            settings: Kind of index, and what its codes depend on.
            rows_then: Number of rows at training.
            learned: Numbers that training has learned.
            width: Bytes of a code.
        """
        data = np.ascontiguousarray(learned, "<f4").tobytes()
        page = _HEADER.pack(
            _MAGIC,
            FORMAT_VERSION,
            secrets.token_bytes(16),
            rows_then,
            len(learned),
            zlib.crc32(data),
            width,
            settings,
        ).ljust(_PAGE_BYTES - 4, b"\0")
        path.unlink(missing_ok=True)
        descriptor = os.open(
            path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), _OWNER_ONLY
        )
        with open(descriptor, "wb") as file:
            file.write(page + struct.pack("<I", zlib.crc32(page)) + data)
        return cls(path, writable=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def is_at(self, path: Path) -> bool:
        """Whether this is the file at a path."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def learned(self) -> Floats:
        """The numbers that training has learned.

        Raises:
            CodesInvalidError: They are damaged.
        """
        header = self.header
        if self._size() < self.first:
            raise CodesInvalidError(f"{self.path.name} ends early")
        learned = self._read(_PAGE_BYTES, "<f4", header.num_learned)
        if zlib.crc32(learned.tobytes()) != header.learned_checksum:
            raise CodesInvalidError(f"{self.path.name} is damaged")
        return np.asarray(learned, np.float32)

    def batches(self) -> Iterator[tuple[Batch, int]]:
        """Intact batches from the first on, each with its end in the file."""
        last_id = 0
        for place in self._places():
            ids = self._read(place.ids, "<i8", place.num_rows)
            checksums = self._read(place.checksums, "<u4", place.num_rows)
            stated = self._read(place.row_checksums, "<u4", place.num_rows)
            arrangement = self._read(place.arrangement, "<i4", place.num_arranged)
            (arranged,) = self._read(place.arrangement + arrangement.nbytes, "<u4", 1)
            codes = self._read(place.codes, "u1", place.num_rows * place.code_bytes)
            codes = codes.reshape(place.num_rows, place.code_bytes)
            wrong = (row_checksums(ids, checksums, codes) != stated) & (ids > 0)
            if wrong.any():  # or deleted meanwhile: the id is negated first
                ids = self._read(place.ids, "<i8", place.num_rows)
            known = np.sort(np.abs(ids))
            if (
                (wrong & (ids > 0)).any()
                or zlib.crc32(arrangement.tobytes()) != arranged
                or (known[0], known[-1]) != (place.first_id, place.last_id)
                or place.first_id <= last_id
                or (known[1:] == known[:-1]).any()
            ):
                return
            last_id = place.last_id
            yield Batch(ids, checksums, codes, arrangement), place.end

    def append(self, end: int, batch: Batch) -> int:
        """Write a batch behind the last one; return its end. Durable after :meth:`sync`."""
        if self._size() > end:
            self._cut_off(end)
        known = np.abs(batch.ids)
        head = _BATCH.pack(
            _BATCH_MAGIC,
            len(batch.ids),
            len(batch.arrangement),
            int(known.min()),
            int(known.max()),
            0,
        )
        arrangement = np.ascontiguousarray(batch.arrangement, "<i4").tobytes()
        stated = row_checksums(*batch[:3])
        stated[batch.ids < 0] = 0
        self._write(
            end,
            head + struct.pack("<I", zlib.crc32(head)),
            np.ascontiguousarray(batch.ids, "<i8"),
            np.ascontiguousarray(batch.checksums, "<u4"),
            np.ascontiguousarray(stated, "<u4"),
            arrangement + struct.pack("<I", zlib.crc32(arrangement)),
            np.ascontiguousarray(batch.codes),
        )
        return int(self._file.tell())

    def erase(self, ids: Ids) -> None:
        """Overwrite the codes of ids, ascending, and note that they are deleted; durable."""
        for place in list(self._places()):
            if _within(ids, place):
                self._erase(place, lambda known: _is_among(known, ids))

    def keep(self, ids: Ids) -> None:
        """Overwrite the codes of all ids but these, ascending, like :meth:`erase`."""
        for place in list(self._places()):
            self._erase(place, lambda known: ~_is_among(known, ids))

    def cut_off_rest(self) -> None:
        """Overwrite what is behind the last complete batch, and shorten the file."""
        end = max([self.first, *(place.end for place in self._places())])
        if self._size() > end:
            self._cut_off(end)

    def ends_at(self, end: int) -> bool:
        """Whether there is a complete batch, or no batch, up to a position, and none behind it."""
        return max([self.first, *(place.end for place in self._places())]) == end

    def sync(self) -> None:
        """Flush what was written to the disk."""
        self._file.flush()
        getattr(os, "fdatasync", os.fsync)(self._file.fileno())

    # --- bytes ----------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """Position of the first batch."""
        return _PAGE_BYTES + 4 * self.header.num_learned

    def _erase(self, place: _Place, is_erased: Callable[[Ids], Mask]) -> None:
        stored = self._read(place.ids, "<i8", place.num_rows)
        stated = self._read(place.row_checksums, "<u4", place.num_rows)
        # A row that was negated, and still has a checksum, was not overwritten completely.
        rows = np.flatnonzero(is_erased(np.abs(stored)) & ((stored > 0) | (stated != 0))).tolist()
        if not rows:
            return
        for row in rows:
            self._write(place.ids + 8 * row, struct.pack("<q", -abs(int(stored[row]))))
        self.sync()
        for row in rows:
            self._write(place.codes + place.code_bytes * row, bytes(place.code_bytes))
            self._write(place.checksums + 4 * row, bytes(4))
        self.sync()
        for row in rows:
            self._write(place.row_checksums + 4 * row, bytes(4))
        self.sync()

    def _places(self) -> Iterator[_Place]:
        """Batches from the first on, up to one that is not complete."""
        at, size = self.first, self._size()
        while at + _BATCH.size + 4 <= size:
            self._file.seek(at)
            head = self._file.read(_BATCH.size + 4)
            magic, rows, numbers, first, last, _ = _BATCH.unpack(head[:-4])
            if magic != _BATCH_MAGIC or head[-4:] != struct.pack("<I", zlib.crc32(head[:-4])):
                return
            place = _Place(at, rows, numbers, first, last, self.header.code_bytes)
            if not 0 < rows <= BATCH_ROWS or place.end > size:
                return
            yield place
            at = place.end

    def _cut_off(self, end: int) -> None:
        """Overwrite what is behind the last batch, and shorten the file."""
        for at in range(end, self._size(), _ZERO_BYTES):
            self._write(at, bytes(min(_ZERO_BYTES, self._size() - at)))
        self.sync()
        self._file.truncate(end)

    def _size(self) -> int:
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def _read(self, at: int, kind: str, count: int) -> Any:
        self._file.seek(at)
        array = np.empty(count, kind)
        if self._file.readinto(array.data) != array.nbytes:
            raise CodesInvalidError(f"{self.path.name} ends early")
        return array

    def _write(self, at: int, *parts: Any) -> None:
        self._file.seek(at)
        for part in parts:
            self._file.write(part)


def row_checksums(ids: Ids, checksums: Checksums, codes: Bytes) -> Checksums:
    """Hashes of 32 bits of rows, above zero. CRC-32 would need a call for each row."""
    num_words = -(-codes.shape[1] // 8)
    padded = np.zeros((len(codes), 8 * num_words), np.uint8)
    padded[:, : codes.shape[1]] = codes
    words = padded.view("<u8").astype(np.uint64, copy=False)
    hashes = np.einsum("ij,j->i", words, _multipliers(num_words))
    hashes ^= _mixed(ids.astype(np.uint64))
    hashes ^= _mixed(checksums.astype(np.uint64) + np.uint64(1 << 40))
    return (_mixed(hashes) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def _multipliers(count: int) -> npt.NDArray[np.uint64]:
    return _mixed(np.arange(1, count + 1, dtype=np.uint64)) | np.uint64(1)


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
    numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _header_of(page: bytes, path: Path) -> Header:
    if len(page) < _PAGE_BYTES or not page.startswith(_MAGIC):
        raise CodesInvalidError(f"{path.name} is not a file of codes")
    if page[-4:] != struct.pack("<I", zlib.crc32(page[:-4])):
        raise CodesInvalidError(f"{path.name} is damaged")
    _, version, *fields = _HEADER.unpack_from(page)
    if version != FORMAT_VERSION:
        raise CodesInvalidError(f"{path.name} has format {version}, and not {FORMAT_VERSION}")
    header = Header(*fields)
    return header._replace(settings=header.settings.rstrip(b"\0"))


def _within(ids: Ids, place: _Place) -> bool:
    first = int(np.searchsorted(ids, place.first_id))
    return first < len(ids) and int(ids[first]) <= place.last_id


def _is_among(known: Ids, ids: Ids) -> Mask:
    """Which ids are among ascending ids."""
    if not len(ids):
        return np.zeros(len(known), np.bool_)
    places = np.searchsorted(ids, known).clip(max=len(ids) - 1)
    among: Mask = ids[places] == known
    return among
