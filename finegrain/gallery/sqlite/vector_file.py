"""The file of a gallery's vectors, next to its database.

The file has a header of one page, and blocks of a fixed number of slots. A slot holds the id of a
picture, and the CRC-32, the vector and the one-byte codes of that picture. Slots are filled in the
order of ids, and never used again. A full block also holds the grid of its codes
(:class:`~finegrain.index.codes.Grid`), so that they are not made again at each opening. The file
ends with the last vector of the last block, which gets its codes when it is full.

A deletion overwrites the vector, its checksum and its codes with zeros, and negates the id, so that
ids stay in order. The database states how many slots are in use. What is behind them belongs to a
write that was undone.

The file is read by calls of the system, and not by access to a memory map. If the disk fails or
the file becomes shorter, a call returns an error, where an access would end the process.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.files import OWNER_ONLY
from finegrain.gallery.sqlite.positioned_file import PositionedFile
from finegrain.index.codes import DamagedCodesError, Encoded, Grid, encode
from finegrain.index.estimate import Ids, Rows, Vectors, longest_of

BLOCK_ROWS = 16_384
"""Slots of a block of a new file; the header states it."""

FORMAT_VERSION = 1

_MAGIC = b"finegrainvectors"
_HEADER = struct.Struct("<16sIII32s")  # magic, format, width, slots of a block, identity
_HEADER_BYTES = 4096
_GROUP_ROWS = 256  # codes of so many rows share a checksum, which a deletion computes again
_COPIED_BYTES = 8 << 20
_DENSE = 4  # a range of slots is read in one piece if one in this many is wanted

Checksums = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

StoredRows = tuple[Ids, Checksums, Vectors]
"""Ids, ascending, with the CRC-32 of their vectors and the vectors ``[n, D]``."""


class Corrections(NamedTuple):
    """Correct ids and checksums of slots whose own are damaged.

    Attributes:
        slots: The slots, ascending.
        seen: The damaged ids. A correction applies only while the slot holds this id.
        ids: The correct ids.
        checksums: The correct checksums.
    """

    slots: Rows
    seen: Ids
    ids: Ids
    checksums: Checksums


class _Range(NamedTuple):
    """Some wanted slots of one block.

    Attributes:
        block: Number of the block.
        rows: Rows of the slots within the block, ascending.
        places: Where they are in the sequence of all wanted slots.
    """

    block: int
    rows: Rows
    places: slice


def checksums_of(vectors: Vectors) -> Checksums:
    """CRC-32 of each row of ``[n, D]``, in its stored form."""
    stored = np.ascontiguousarray(vectors, "<f4")
    return np.fromiter(map(zlib.crc32, stored), np.uint32, len(stored))


def is_vector_file(path: Path) -> bool:
    """Whether a file begins as a file of vectors."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class VectorFile:
    """An open file of vectors. Any number of threads may read; the caller serialises writes.

    Args:
        path: Path of an existing file.
        writable: Whether it may be written.

    Raises:
        GalleryError: The file is not a file of vectors, is of another format, or is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._file = PositionedFile(path, writable=writable)
        header = np.zeros(_HEADER.size + 4, np.uint8)
        self._file.read_into(0, header[: min(self._file.size(), len(header))])
        magic, version, self.width, self.block_rows, identity = _HEADER.unpack_from(header.data)
        if magic != _MAGIC or zlib.crc32(header[:-4].data) != int(header[-4:].view("<u4")[0]):
            raise GalleryError(
                f"{path} is not a file of vectors, or its header is damaged. Restore the gallery "
                "from a backup."
            )
        if version != FORMAT_VERSION:
            raise GalleryError(
                f"{path} has format {version}; this finegrain reads format {FORMAT_VERSION}. Open "
                "it with the version that wrote it, or a newer one."
            )
        self.identity = str(identity, "ascii")
        self._layout = _layout(self.width, self.block_rows)
        self._offsets = _offsets(self._layout)
        self._first_ids: list[int] = []
        self._corrected: dict[int, Corrections] = {}

    @classmethod
    def create(cls, path: Path, *, width: int, identity: str, block_rows: int) -> Self:
        """Create a file without blocks that only its owner may read; it replaces another file."""
        path.unlink(missing_ok=True)
        header = _HEADER.pack(_MAGIC, FORMAT_VERSION, width, block_rows, identity.encode("ascii"))
        header += struct.pack("<I", zlib.crc32(header))
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY)
        try:
            with open(descriptor, "wb") as file:
                file.write(header.ljust(_HEADER_BYTES, b"\0"))
        except OSError:
            path.unlink()
            raise
        return cls(path, writable=True)

    def close(self) -> None:
        self._file.close()

    def is_at(self, path: Path) -> bool:
        """Whether this file is at a path, and has kept its identity."""
        if not self._file.is_at(path):
            return False
        try:
            return VectorFile(path, writable=False).identity == self.identity
        except (GalleryError, OSError):
            return False

    @property
    def path(self) -> Path:
        return self._file.path

    def last_written(self) -> int:
        """When the file was last written, in nanoseconds since 1970."""
        return self._file.last_written()

    def holds(self, num_slots: int) -> bool:
        """Whether the file is long enough for the slots in use."""
        return self._file.size() >= self._size(num_slots)

    # --- reading ------------------------------------------------------------------------

    def ids(self, block: int) -> Ids:
        """Ids by slot of a block: negative if deleted, zero if the slot was never used."""
        ids = self.stored_ids(block)
        if block in self._corrected:
            rows, _, right, _ = self._corrections_of(block, ids)
            ids[rows] = right
        return ids

    def checksums(self, block: int) -> Checksums:
        """CRC-32 of the vectors by slot of a block."""
        checksums = self.stored_checksums(block)
        if block in self._corrected:
            rows, *_, right = self._corrections_of(block, self.stored_ids(block))
            checksums[rows] = right
        return checksums

    def stored_ids(self, block: int) -> Ids:
        """Ids by slot of a block, without corrections."""
        ids: Ids = self._read(block, "ids").astype(np.int64, copy=False)
        return ids

    def stored_checksums(self, block: int) -> Checksums:
        """CRC-32 of the vectors by slot of a block, without corrections."""
        checksums: Checksums = self._read(block, "checksums").astype(np.uint32, copy=False)
        return checksums

    def vectors(self, slots: Rows) -> Vectors:
        """Vectors ``[n, D]`` of ascending slots, unchecked."""
        vectors = np.empty((len(slots), self.width), "<f4")
        for block, rows, places in self._ranges(slots):
            target = vectors[places]
            first, last = int(rows[0]), int(rows[-1])
            if len(rows) == last + 1 - first:
                self._file.read_into(self._at(block, "vectors", first), target)
            elif len(rows) * _DENSE > last - first:
                target[:] = self._read(block, "vectors", first, last + 1)[rows - first]
            else:
                self._file.gather(self._at(block, "vectors", 0) + rows * target.strides[0], target)
        return vectors.astype(np.float32, copy=False)

    def codes(self, block: int) -> Iterator[Encoded]:
        """The codes of a full block by slot, one group after the other in the same array.

        Raises:
            DamagedCodesError: They or their grid are damaged, or were made again meanwhile.
        """
        try:
            grid_checksum = self._read(block, "grid_checksum")
            grid, checksums = self._grid(block), self._read(block, "groups")
            if grid is None:
                raise DamagedCodesError
            levels = np.empty((_GROUP_ROWS, self.width), np.uint8)
            for group, start in enumerate(range(0, self.block_rows, _GROUP_ROWS)):
                own = levels[: self.block_rows - start]
                self._file.read_into(self._at(block, "levels", start), own)
                if zlib.crc32(own.data) != checksums[group]:
                    raise DamagedCodesError
                yield Encoded(grid, own)
            if self._read(block, "grid_checksum") != grid_checksum:
                raise DamagedCodesError
        except OSError as error:  # the disk does not return them
            raise DamagedCodesError from error

    def damaged_codes(self, block: int) -> list[tuple[int, int]]:
        """First and last id of each group of rows of a full block whose codes are damaged."""
        ids = np.abs(self.ids(block)).tolist()
        if self._grid(block) is None:
            return [(ids[0], ids[-1])]
        groups = np.flatnonzero(self._wrong_groups(block, self._read(block, "levels")))
        starts = (groups * _GROUP_ROWS).tolist()
        return [(ids[start], ids[start:][:_GROUP_ROWS][-1]) for start in starts]

    def slots_of(self, ids: Ids, num_slots: int, *, deleted: bool = False) -> Rows:
        """Slots of ascending ids; -1 for ids that the first ``num_slots`` slots do not hold.

        Args:
            ids: The ids.
            num_slots: Number of slots in use.
            deleted: Whether to find the slots of deleted ids as well.
        """
        slots = np.full(len(ids), -1, np.int64)
        num_blocks = -(-num_slots // self.block_rows)
        first_ids = np.array(self._first_ids_of(num_blocks), np.int64)
        blocks = np.searchsorted(first_ids, ids, side="right") - 1
        for block in sorted({*blocks.tolist()} - {-1}):  # np.unique imports masked arrays
            wanted = np.flatnonzero(blocks == block)
            stored = self.ids(block)[: num_slots - block * self.block_rows]
            known = np.abs(stored)
            order = np.argsort(known, kind="stable")  # damaged ids may be out of order
            places = np.searchsorted(known[order], ids[wanted]).clip(max=len(stored) - 1)
            places = order[places]
            held = (known if deleted else stored)[places] == ids[wanted]
            slots[wanted[held]] = places[held] + block * self.block_rows
        return slots

    def ids_at(self, slots: Rows) -> Ids:
        """Ids of ascending slots, as :meth:`ids` states them."""
        ids = np.empty(len(slots), np.int64)
        for block, rows, places in self._ranges(slots):
            ids[places] = self.ids(block)[rows]
        return ids

    def checksums_at(self, slots: Rows) -> Checksums:
        """CRC-32 of the vectors of ascending slots."""
        checksums = np.empty(len(slots), np.uint32)
        for block, rows, places in self._ranges(slots):
            checksums[places] = self.checksums(block)[rows]
        return checksums

    def correct(self, corrections: Corrections) -> None:
        """Return correct ids and checksums in place of damaged ones from now on."""
        corrected = {}
        for block, rows, places in self._ranges(corrections.slots):
            _, seen, ids, checksums = corrections
            corrected[block] = Corrections(rows, seen[places], ids[places], checksums[places])
        self._corrected = corrected
        self._first_ids = []

    def holds_more_than(self, num_slots: int) -> bool:
        """Whether a write behind the slots in use was undone."""
        if self._file.size() > self._size(num_slots):
            return True
        block, row = divmod(num_slots, self.block_rows)
        return row > 0 and bool(self._read(block, "ids", row, row + 1)[0])

    # --- writing ------------------------------------------------------------------------

    def append(self, first_slot: int, ids: Ids, checksums: Checksums, vectors: Vectors) -> None:
        """Write rows under ascending ids; durable after :meth:`sync`.

        A block that becomes full gets its codes.

        Args:
            first_slot: The number of slots in use.
            ids, checksums, vectors: Rows ``[n]``, ``[n]`` and ``[n, D]``.
        """
        if self.holds_more_than(first_slot):
            self.cut_off(first_slot)
        slots = np.arange(first_slot, first_slot + len(ids))
        for block, rows, places in self._ranges(slots):
            # Ids come first: they show that something was written, if this is interrupted.
            self._write(block, "ids", int(rows[0]), ids[places])
            self._write(block, "checksums", int(rows[0]), checksums[places])
            self._write(block, "vectors", int(rows[0]), vectors[places])
            if rows[-1] == self.block_rows - 1:
                self._encode(block)

    def write_corrections(self) -> None:
        """Write correct ids and checksums over damaged ones, without those of hidden slots."""
        for block in list(self._corrected):
            ids, checksums = self.stored_ids(block), self.stored_checksums(block)
            rows, _, right, right_checksums = self._corrections_of(block, ids)
            shown = right > 0
            ids[rows[shown]], checksums[rows[shown]] = right[shown], right_checksums[shown]
            self._write(block, "checksums", 0, checksums)
            self._write(block, "ids", 0, ids)
        self.sync()

    def erase_strays(self, slots: Rows) -> None:
        """Overwrite ascending slots that hold no picture."""
        # Vectors come first: a stray is recognised by its id, if this is interrupted.
        for block, rows, _ in self._ranges(slots):
            self._overwrite(block, rows)
        self.sync()
        self.erase(slots)

    def erase(self, slots: Rows) -> None:
        """Overwrite the vectors, checksums and codes of ascending slots, and negate their ids."""
        for block, rows, _ in self._ranges(slots):
            ids, checksums = self.stored_ids(block), self.stored_checksums(block)
            ids[rows] = -np.abs(self.ids(block)[rows])
            checksums[rows] = 0
            # Ids come first: a search that reads a vector meanwhile looks at its id afterwards.
            self._write(block, "ids", 0, ids)
            self._write(block, "checksums", 0, checksums)
            self._overwrite(block, rows)
        self.sync()

    def _overwrite(self, block: int, rows: Rows) -> None:
        """Overwrite the vectors and codes of some rows of a block."""
        nothing = np.zeros((1, self.width))
        for row in rows.tolist():
            self._write(block, "vectors", row, nothing)
        if not self.holds((block + 1) * self.block_rows):
            return  # the last block has no codes yet
        checksums = self._read(block, "groups")
        groups = np.unique(rows // _GROUP_ROWS)
        was_damaged = (self._checksums_of_groups(block, groups) != checksums[groups]).any()
        for row in rows.tolist():
            self._write(block, "levels", row, nothing)
        if was_damaged:  # a new checksum would hide that
            self._encode_again(block)
        else:
            checksums[groups] = self._checksums_of_groups(block, groups)
            self._write(block, "groups", 0, checksums)

    def _checksums_of_groups(self, block: int, groups: Rows) -> Checksums:
        """CRC-32 of the present codes of some groups of rows."""
        starts = (groups * _GROUP_ROWS).tolist()
        stops = [min(start + _GROUP_ROWS, self.block_rows) for start in starts]
        return np.array(
            [
                zlib.crc32(self._read(block, "levels", start, stop).data)
                for start, stop in zip(starts, stops, strict=True)
            ],
            np.uint32,
        )

    def _encode_again(self, block: int) -> None:
        """Replace damaged codes of a full block."""
        # They count as damaged until they are complete, also after an interruption.
        self._write(block, "groups", 0, ~_group_checksums(self._read(block, "levels")))
        self.sync()
        self._encode(block)

    def cut_off(self, num_slots: int) -> None:
        """Overwrite what is behind the slots in use, and shorten the file."""
        block, row = divmod(num_slots, self.block_rows)
        if row:
            for name in ("ids", "checksums"):
                rest = self._read(block, name, row, self.block_rows)
                self._write(block, name, row, np.zeros_like(rest))
        behind = self._file.size() - self._size(num_slots)
        for at in range(0, behind, _COPIED_BYTES):
            zeros = np.zeros(min(behind - at, _COPIED_BYTES), np.uint8)
            self._file.write(self._size(num_slots) + at, zeros)
        self._file.resize(self._size(num_slots))
        self.sync()

    def sync(self) -> None:
        """Flush what was written to the disk."""
        self._file.sync()

    def copied(self, path: Path, identity: str, num_slots: int) -> VectorFile:
        """Copy the first slots to a new file of another identity; not durable yet."""
        copy = VectorFile.create(
            path, width=self.width, identity=identity, block_rows=self.block_rows
        )
        size = self._size(num_slots)
        for at in range(_HEADER_BYTES, size, _COPIED_BYTES):
            data = np.empty(min(size - at, _COPIED_BYTES), np.uint8)
            self._file.read_into(at, data)
            copy._file.write(at, data)
        copy.cut_off(num_slots)
        return copy

    def _corrections_of(self, block: int, stored: Ids) -> Corrections:
        """The corrections of a block that apply to its stored ids, by row."""
        corrections = self._corrected[block]
        applies = stored[corrections.slots] == corrections.seen
        return Corrections(*(part[applies] for part in corrections))

    def _encode(self, block: int) -> None:
        """Make the codes of a full block; damaged and deleted rows get zeros."""
        vectors = self._read(block, "vectors").astype(np.float32, copy=False)
        rows = np.flatnonzero(
            (self.ids(block) > 0) & (checksums_of(vectors) == self.checksums(block))
        )
        levels = np.zeros(vectors.shape, np.uint8)
        if len(rows):
            grid, levels[rows] = encode(vectors[rows], longest_of(vectors[rows]))
            parts = (grid.middle, grid.step, [grid.longest, grid.residual, grid.largest])
            stored = [np.asarray(part, "<f8") for part in parts]
            self._write(block, "grid", 0, np.concatenate(stored))
            self._write(block, "grid_checksum", 0, _checksum(np.concatenate(stored)))
        self._write(block, "levels", 0, levels)
        self._write(block, "groups", 0, _group_checksums(levels))

    def _grid(self, block: int) -> Grid | None:
        """The grid of a full block, or None if it is damaged."""
        numbers = self._read(block, "grid")
        if _checksum(numbers) != self._read(block, "grid_checksum"):
            return None
        middle, step, bounds = np.split(numbers, [self.width, 2 * self.width])
        return Grid(middle.astype(np.float32), step.astype(np.float32), *bounds.tolist())

    def _wrong_groups(self, block: int, levels: npt.NDArray[np.uint8]) -> Mask:
        wrong: Mask = _group_checksums(levels) != self._read(block, "groups")
        return wrong

    def _first_ids_of(self, num_blocks: int) -> list[int]:
        """The first id of each block, whether deleted or not."""
        known = self._first_ids
        if len(known) < num_blocks:
            new = [self._first_id(block) for block in range(len(known), num_blocks)]
            self._first_ids = known = [*known, *new]
        return known[:num_blocks]

    def _first_id(self, block: int) -> int:
        if block in self._corrected:
            return abs(int(self.ids(block)[0]))
        return abs(int(self._read(block, "ids", 0, 1)[0]))

    def _ranges(self, slots: Rows) -> Iterator[_Range]:
        if not len(slots):
            return
        first, last = int(slots[0]) // self.block_rows, int(slots[-1]) // self.block_rows
        if first == last:  # the common case
            yield _Range(first, slots - first * self.block_rows, slice(0, len(slots)))
            return
        ends = np.searchsorted(slots, np.arange(first, last + 2) * self.block_rows).tolist()
        for block, start, stop in zip(range(first, last + 1), ends, ends[1:], strict=False):
            if start < stop:
                yield _Range(block, slots[start:stop] - block * self.block_rows, slice(start, stop))

    def _size(self, num_slots: int) -> int:
        """Size of a file with some slots in use: the last block ends with its last vector."""
        block, row = divmod(num_slots, self.block_rows)
        return self._at(block, "vectors", row) if row else self._end(block)

    def _end(self, num_blocks: int) -> int:
        """Position behind some blocks."""
        return _HEADER_BYTES + num_blocks * int(self._layout.itemsize)

    def _at(self, block: int, name: str, row: int) -> int:
        field = self._layout[name]
        row_bytes = int(field.itemsize // field.shape[0])
        return self._end(block) + self._offsets[name] + row * row_bytes

    def _read(self, block: int, name: str, start: int = 0, stop: int | None = None) -> Any:
        """Rows of a field of a block; all by default."""
        base = self._layout[name]
        rows = (base.shape[0] if stop is None else stop) - start
        array = np.empty((rows, *base.shape[1:]), base.base)
        self._file.read_into(self._at(block, name, start), array)
        return array

    def _write(self, block: int, name: str, start: int, rows: npt.NDArray[np.generic]) -> None:
        data = np.ascontiguousarray(rows, self._layout[name].base)
        self._file.write(self._at(block, name, start), data)


def _layout(width: int, block_rows: int) -> np.dtype[np.void]:
    groups = -(-block_rows // _GROUP_ROWS)
    return np.dtype(
        [
            ("grid", "<f8", (2 * width + 3,)),
            ("grid_checksum", "<u4", (1,)),
            ("groups", "<u4", (groups,)),
            ("ids", "<i8", (block_rows,)),
            ("checksums", "<u4", (block_rows,)),
            ("vectors", "<f4", (block_rows, width)),
            ("levels", "u1", (block_rows, width)),
        ]
    )


def _offsets(layout: np.dtype[np.void]) -> dict[str, int]:
    """Position of each field within a block."""
    offsets, end = {}, 0
    for name in layout.names or ():  # the fields follow each other without gaps
        offsets[name] = end
        end += layout[name].itemsize
    return offsets


def _checksum(numbers: npt.NDArray[np.generic]) -> npt.NDArray[np.uint32]:
    return np.array([zlib.crc32(numbers.data)], np.uint32)


def _group_checksums(levels: npt.NDArray[np.uint8]) -> Checksums:
    starts = range(0, len(levels), _GROUP_ROWS)
    return np.array([zlib.crc32(levels[start:][:_GROUP_ROWS].data) for start in starts], np.uint32)
