"""The vectors of a gallery: which of them its database states, in the file next to it.

The database decides which rows exist. For each picture it also holds the CRC-32 of the vector, so
that each row of the file can be compared. A table with one row holds the identity of the file, the
number of slots in use, and the sum of a hash over the ids and checksums of these slots, which tells
in one pass over the ids whether the file is of the same moment as the database.

An addition writes vectors behind the slots in use, and flushes them, before its transaction
commits. A deletion first commits; a trigger notes the rows in the table ``erasing``. Then their
vectors are overwritten, and the notes removed, in a second transaction that continues after an
interruption.

A new file, as after a reindexing, is written under another name. It belongs to the gallery once the
database states its identity, and is then renamed, at the latest at the next opening.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.damage import Fault, Remedy
from finegrain.gallery.entries import not_normalised, stored_length
from finegrain.gallery.sqlite import vector_file
from finegrain.gallery.sqlite.comparison import Comparison, Slots, compare
from finegrain.gallery.sqlite.files import next_vectors_of, sync_folder, vectors_of
from finegrain.gallery.sqlite.rows import Run
from finegrain.gallery.sqlite.vector_file import (
    Checksums,
    Mask,
    StoredRows,
    VectorFile,
    checksums_of,
)
from finegrain.gallery.sqlite.vector_source import VectorSource
from finegrain.index.block import StoredBlock
from finegrain.index.estimate import Ids, Rows, Vectors
from finegrain.index.vector_rows import FiledVectors

TOLERATED = 8
"""Most pictures whose vector may be wrong before the file is taken for another one's. It is a
hundredth of the pictures, if that is more."""

_SUM = (1 << 63) - 1


class State(NamedTuple):
    """What the database states about the file.

    Attributes:
        identity: Identity of the file; None before the first addition.
        num_slots: Number of slots in use.
        total: Sum of the hashes of ids and checksums, including those that are being erased.
    """

    identity: str | None
    num_slots: int
    total: int


def state_of(run: Run) -> State:
    return State(*run("SELECT identity, num_slots, total FROM vector_file").fetchone())


def hash_sum(ids: Ids, checksums: npt.NDArray[np.integer]) -> int:
    """Sum of hashes of ids and checksums, in 63 bits."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= checksums.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return int(mixed.sum(dtype=np.uint64)) & _SUM


class StoredVectors:
    """The vectors of a gallery. Any number of threads may read; the caller serialises writes.

    Args:
        path: Path of the gallery.
        read_only: Whether the gallery is open for reading only.
        on_damage: Called with the ids of vectors that do not agree with their checksum.
    """

    def __init__(
        self, path: Path, *, read_only: bool, on_damage: Callable[[Collection[int]], None]
    ) -> None:
        self._path = path
        self._read_only = read_only
        self._on_damage = on_damage
        self._lock = threading.Lock()
        self._source: VectorSource | None = None
        self._unsynced = False

    def close(self) -> None:
        """Let the file go; searches that still run may finish."""
        self._source = None

    # --- reading, inside a transaction ----------------------------------------------------

    def verify(self, run: Run, *, each_row: bool = False) -> Comparison | None:
        """Compare ids and checksums in the file with the database, and use correct ones.

        Args:
            run: The ``execute`` of a connection.
            each_row: Compare each row, also if the sum is right.

        Returns:
            The differences; None if the sum is right, or there is no file.

        Raises:
            GalleryError: The file is missing, or is not of the same gallery and moment.
        """
        state = state_of(run)
        file = self._opened(state)
        if file is None:
            return None
        slots = _slots(file, state.num_slots)
        erasing = _pairs(run("SELECT id, checksum FROM erasing"))
        alive = (slots.ids > 0) & ~np.isin(slots.ids, erasing[0])
        total = (state.total - hash_sum(*erasing)) & _SUM
        is_right = hash_sum(slots.ids[alive], slots.checksums[alive]) == total
        if is_right and slots.are_in_order() and not each_row:
            return None
        pictures = _pairs(run("SELECT id, vector_checksum FROM picture ORDER BY id"))
        comparison = compare(
            slots, _by_id(pictures), _by_id(erasing), lambda rows: checksums_of(file.vectors(rows))
        )
        num_pictures, num_missing = len(pictures[0]), len(comparison.missing)
        if num_missing > max(TOLERATED, num_pictures // 100):
            raise GalleryError(
                f"{self._path} and {vectors_of(self._path).name} are not of the same moment: "
                f"{num_missing} of {num_pictures} vectors are missing or others. Restore both "
                "files from one backup. Copy a gallery with: finegrain gallery backup FILE COPY"
            )
        file.correct(comparison.corrections)
        return comparison

    def read(self, run: Run, rows: Iterable[tuple[int, int]]) -> tuple[Ids, Vectors, list[int]]:
        """Read the vectors of stored pictures.

        Args:
            run: The ``execute`` of a connection.
            rows: Ids and checksums of the vectors of pictures in its snapshot, by ascending id.

        Returns:
            The ids of intact vectors, these vectors ``[n, D]``, and the ids of damaged ones.
        """
        ids, checksums = _pairs(rows)
        state = state_of(run)
        file = self._opened(state)
        if file is None:
            return ids[:0], np.empty((0, 0), np.float32), ids.tolist()
        slots = file.slots_of(ids, state.num_slots)
        held = np.flatnonzero(slots >= 0)
        vectors = file.vectors(slots[held])
        intact = checksums_of(vectors) == checksums[held]
        intact[not_normalised(vectors, _length(run))] = False
        places = held[intact]
        return ids[places], vectors[intact], np.delete(ids, places).tolist()

    def last_id(self, run: Run) -> int:
        """The highest id that was ever written; 0 if there is none."""
        state = state_of(run)
        file = self._opened(state)
        if file is None or not state.num_slots:
            return 0
        return abs(int(file.ids_at(np.array([state.num_slots - 1]))[0]))

    def blocks(self, run: Run) -> tuple[str | None, int]:
        """Identity of the file, and the number of its blocks that have codes."""
        state = state_of(run)
        file = self._opened(state)
        return state.identity, 0 if file is None else state.num_slots // file.block_rows

    def block(self, run: Run, number: int) -> StoredBlock:
        """A full block, without pictures that are deleted."""
        file, source = self._opened(state_of(run)), self._source
        if file is None or source is None:
            raise GalleryError(
                f"expected block {number} of {vectors_of(self._path)}, got a gallery without "
                "vectors. Open the gallery again."
            )
        ids = file.ids(number)
        slots = np.arange(len(ids)) + number * file.block_rows
        filed = FiledVectors(source, slots, file.checksums(number))
        kept = self._kept(run, ids)
        return StoredBlock(ids, filed, file.encoded(number)).only(kept)

    def rows(self, run: Run) -> Iterator[StoredRows]:
        """The rows of present pictures as they are stored, by block."""
        state = state_of(run)
        file = self._opened(state)
        if file is None:
            return
        for block in range(-(-state.num_slots // file.block_rows)):
            used = slice(0, state.num_slots - block * file.block_rows)
            ids, checksums = file.ids(block)[used], file.checksums(block)[used]
            kept = np.flatnonzero(self._kept(run, ids))
            yield ids[kept], checksums[kept], file.vectors(kept + block * file.block_rows)

    def is_mostly_deleted(self, run: Run) -> bool:
        """Whether deleted pictures take more slots than others, and more than a block."""
        state = state_of(run)
        (count,) = run("SELECT count(*) FROM picture").fetchone()
        return state.num_slots - int(count) > max(int(count), vector_file.BLOCK_ROWS)

    def _kept(self, run: Run, ids: Ids) -> Mask:
        """Which rows of a block belong to present pictures."""
        kept: Mask = (ids > 0) & ~np.isin(ids, _ids(run("SELECT id FROM erasing")))
        return kept

    def lost_ids(self, run: Run) -> Ids:
        """Ids of all pictures that were deleted since the file was created."""
        state = state_of(run)
        file = self._opened(state)
        lost = [_ids(run("SELECT id FROM erasing"))]
        if file is not None:
            for block in range(-(-state.num_slots // file.block_rows)):
                ids = file.ids(block)
                lost.append(-ids[ids < 0])
        return np.concatenate(lost)

    def faults(self, run: Run) -> Iterator[Fault]:
        """Descriptions of all damage to vectors and codes; reads all of them.

        Raises:
            GalleryError: The file is missing, or is not of the same gallery and moment.
        """
        name = vectors_of(self._path).name
        comparison = self.verify(run, each_row=True)
        state = state_of(run)
        file = self._opened(state)
        if comparison is None or file is None:
            return
        if not self.is_in_place(file):
            yield Fault(f"{name} was removed, or replaced by another file", Remedy.RESTORE)
        for id_ in comparison.recovered:
            yield Fault(f"id or checksum of picture {id_} in {name} is damaged", Remedy.COMPACT)
        for id_ in comparison.missing:
            yield Fault(f"vector of picture {id_} is missing, or is another one", Remedy.INDEX)
        if len(comparison.strays):
            yield Fault(f"{name} holds {len(comparison.strays)} deleted vectors", Remedy.COMPACT)
        for block in range(-(-state.num_slots // file.block_rows)):
            ids = file.ids(block)
            ids[np.isin(ids, _ids(run("SELECT id FROM erasing")))] = 0
            rows = np.flatnonzero(ids > 0)
            slots = rows + block * file.block_rows
            slots, rows = slots[slots < state.num_slots], rows[slots < state.num_slots]
            vectors = file.vectors(slots)
            intact = checksums_of(vectors) == file.checksums(block)[rows]
            for id_ in ids[rows[~intact]].tolist():
                text = f"vector of picture {id_} does not agree with its checksum"
                yield Fault(text, Remedy.INDEX)
            invalid = not_normalised(vectors[intact], _length(run))
            for id_ in ids[rows[intact]][invalid].tolist():
                yield Fault(f"vector of picture {id_} does not have length 1", Remedy.INDEX)
            if (block + 1) * file.block_rows <= state.num_slots:
                for first, last in file.damaged_codes(block):
                    text = f"codes of the vectors of pictures {first} to {last} are damaged"
                    yield Fault(text, Remedy.COMPACT)

    # --- writing, inside a write transaction ----------------------------------------------

    def require_in_place(self, run: Run) -> None:
        """Check that the file is still the one that is next to the database.

        Raises:
            GalleryError: It was removed or replaced.
        """
        if (file := self._opened(state_of(run))) is not None:
            self._require_in_place(file, "changed")

    def is_in_place(self, file: VectorFile) -> bool:
        """Whether an open file is the one that is next to the database."""
        if file.is_at(vectors_of(self._path)):
            return True
        return self._read_only and file.is_at(next_vectors_of(self._path))

    def _require_in_place(self, file: VectorFile, what: str) -> None:
        if not self.is_in_place(file):
            raise GalleryError(
                f"{vectors_of(self._path)} was removed, or replaced by another file, since it was "
                f"opened. What would be {what} now would be lost. Bring it back, or restore a "
                "backup, and open the gallery again."
            )

    def append(
        self, connection: sqlite3.Connection, ids: Ids, checksums: Checksums, vectors: Vectors
    ) -> None:
        """Write the vectors of new pictures; :meth:`sync` must follow before the commit."""
        state = state_of(connection.execute)
        file = self._opened(state)
        if file is None:
            file, state = self._begun(vectors.shape[1])
        self._unsynced = True
        file.append(state.num_slots, ids, checksums, vectors)
        connection.execute(
            "UPDATE vector_file SET identity = ?, num_slots = ?, total = ?",
            (
                file.identity,
                state.num_slots + len(ids),
                (state.total + hash_sum(ids, checksums)) & _SUM,
            ),
        )

    def sync(self) -> None:
        """Flush what was appended."""
        if self._unsynced and self._source is not None:
            self._source.file.sync()
        self._unsynced = False

    def erase(self, connection: sqlite3.Connection) -> None:
        """Overwrite the vectors of deleted pictures; no reader sees them any more."""
        state = state_of(connection.execute)
        ids, checksums = _pairs(connection.execute("SELECT id, checksum FROM erasing ORDER BY id"))
        if not len(ids):
            return
        file = self._opened(state)
        if file is not None:
            self._require_in_place(file, "erased")
            # Ids are negated first, so an erasure that was interrupted has done that already.
            slots = file.slots_of(ids, state.num_slots, deleted=True)
            if (slots < 0).any():
                slots = self._erase_strays(connection, file, ids)
            file.erase(slots[slots >= 0])
        connection.execute(
            "UPDATE vector_file SET total = ?", ((state.total - hash_sum(ids, checksums)) & _SUM,)
        )
        connection.execute("DELETE FROM erasing")

    def _erase_strays(self, connection: sqlite3.Connection, file: VectorFile, ids: Ids) -> Rows:
        """Overwrite slots of deleted pictures whose id is damaged; return the slots of the others.

        A slot that cannot be recognised is overwritten as well, since it may be one of them.
        """
        comparison = self.verify(connection.execute, each_row=True)
        if comparison is not None:
            file.erase_strays(comparison.strays)
        return file.slots_of(ids, state_of(connection.execute).num_slots, deleted=True)

    def repair(self, connection: sqlite3.Connection) -> list[int]:
        """Write correct ids and checksums, overwrite what no picture has, and renew the sum.

        Returns:
            Ids of the pictures whose id or checksum in the file was damaged.
        """
        run = connection.execute
        comparison = self.verify(run)
        file = self._opened(state_of(run))
        if comparison is None or file is None:
            return []
        file.write_corrections()
        file.erase_strays(comparison.strays)
        pictures = hash_sum(*_pairs(run("SELECT id, vector_checksum FROM picture")))
        erasing = hash_sum(*_pairs(run("SELECT id, checksum FROM erasing")))
        run("UPDATE vector_file SET total = ?", ((pictures + erasing) & _SUM,))
        return comparison.recovered

    def tidy(self, connection: sqlite3.Connection) -> None:
        """Overwrite what writes that were undone, or cut off, have left."""
        state = state_of(connection.execute)
        file = self._opened(state)
        if file is None:
            vectors_of(self._path).unlink(missing_ok=True)
        elif file.holds_more_than(state.num_slots):
            file.cut_off(state.num_slots)
        next_vectors_of(self._path).unlink(missing_ok=True)

    def is_untidy(self, run: Run) -> bool:
        """Whether :meth:`tidy` has something to do, if no other process is writing."""
        state = state_of(run)
        file = self._opened(state)
        if next_vectors_of(self._path).exists():
            return True
        if file is None:
            return vectors_of(self._path).exists()
        return file.holds_more_than(state.num_slots)

    def replace(
        self,
        connection: sqlite3.Connection,
        dim: int,
        chunks: Iterable[StoredRows],
    ) -> None:
        """Write a new file with the vectors of all pictures, ascending.

        After the commit, it gets its name when it is first opened.
        """
        identity = secrets.token_hex(16)
        file = VectorFile.create(
            next_vectors_of(self._path),
            width=dim,
            identity=identity,
            block_rows=vector_file.BLOCK_ROWS,
        )
        num_slots = total = 0
        try:
            for ids, checksums, vectors in chunks:
                file.append(num_slots, ids, checksums, vectors)
                num_slots += len(ids)
                total += hash_sum(ids, checksums)
            file.sync()
        except OSError:  # a part of it would keep a full disk full
            file.path.unlink(missing_ok=True)
            raise
        sync_folder(self._path.parent)
        connection.execute(
            "UPDATE vector_file SET identity = ?, num_slots = ?, total = ?",
            (identity, num_slots, total & _SUM),
        )
        connection.execute("DELETE FROM erasing")

    def copy(self, run: Run, target: Path, copied: sqlite3.Connection) -> None:
        """Copy the file for a copy of the database, and state it there.

        Args:
            run: The ``execute`` of a connection to the gallery, whose snapshot is not younger than
                the copy, so that none of its vectors is overwritten meanwhile.
            target: Path of the copy, under which it is complete afterwards.
            copied: A connection to the copy of the database.
        """
        state = state_of(copied.execute)
        file = self._opened(state_of(run))
        if state.identity is None or file is None:
            return
        identity = secrets.token_hex(16)
        copy = file.copied(target, identity, state.num_slots)
        try:
            ids, checksums = _pairs(copied.execute("SELECT id, checksum FROM erasing ORDER BY id"))
            slots = copy.slots_of(ids, state.num_slots, deleted=True)
            copy.erase(slots[slots >= 0])
            copied.execute(
                "UPDATE vector_file SET identity = ?, total = ?",
                (identity, (state.total - hash_sum(ids, checksums)) & _SUM),
            )
            copied.execute("DELETE FROM erasing")
        finally:
            copy.close()

    # --- the file -------------------------------------------------------------------------

    def _opened(self, state: State) -> VectorFile | None:
        """The file that the database states; None if it states none.

        Raises:
            GalleryError: It is missing, damaged, or another gallery's.
        """
        if state.identity is None:
            return None
        with self._lock:
            source = self._source
            if source is None or source.file.identity != state.identity:
                source = VectorSource(self._searched(state.identity), self._on_damage)
                self._source = source
            file = source.file
        if not file.holds(state.num_slots):
            raise GalleryError(
                f"{vectors_of(self._path)} ends early: it does not hold {state.num_slots} vectors. "
                "Restore both files of the gallery from one backup."
            )
        return file

    def _searched(self, identity: str) -> VectorFile:
        path, new = vectors_of(self._path), next_vectors_of(self._path)
        with suppress(FileNotFoundError, GalleryError):
            if VectorFile(new, writable=False).identity == identity:
                if self._read_only:
                    return VectorFile(new, writable=False)
                with suppress(FileNotFoundError):  # another process was faster
                    os.replace(new, path)
                sync_folder(path.parent)
        try:
            file = VectorFile(path, writable=not self._read_only)
        except FileNotFoundError as error:
            raise GalleryError(
                f"{path}, which holds the vectors of {self._path.name}, is missing. A gallery is "
                "both files together: bring it back, or restore a backup. Copy a gallery with: "
                "finegrain gallery backup FILE COPY"
            ) from error
        if file.identity != identity:
            raise GalleryError(
                f"{path} holds the vectors of another gallery than {self._path.name}, or of an "
                "earlier plan. Restore both files from one backup."
            )
        return file

    def _begun(self, dim: int) -> tuple[VectorFile, State]:
        """A new file for a gallery that has had no vectors yet."""
        path = vectors_of(self._path)
        identity = secrets.token_hex(16)
        file = VectorFile.create(
            path, width=dim, identity=identity, block_rows=vector_file.BLOCK_ROWS
        )
        sync_folder(path.parent)
        with self._lock:
            self._source = VectorSource(file, self._on_damage)
        return file, State(identity, 0, 0)


def _slots(file: VectorFile, num_slots: int) -> Slots:
    """Ids and checksums of the slots in use."""
    ids = [np.empty(0, np.int64)]
    checksums = [np.empty(0, np.uint32)]
    for block in range(-(-num_slots // file.block_rows)):
        used = slice(0, num_slots - block * file.block_rows)
        ids.append(file.stored_ids(block)[used])
        checksums.append(file.stored_checksums(block)[used])
    return Slots(np.concatenate(ids), np.concatenate(checksums))


def _by_id(pairs: tuple[Ids, npt.NDArray[np.int64]]) -> dict[int, int]:
    return dict(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))


def _ids(rows: Iterable[tuple[int]]) -> Ids:
    return np.fromiter((id_ for (id_,) in rows), np.int64)


def _pairs(rows: Iterable[tuple[int, int | None]]) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Ids and checksums; -1 for a checksum that is damaged."""
    pairs = np.array(
        [(id_, value if isinstance(value, int) else -1) for id_, value in rows], np.int64
    )
    pairs = pairs.reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _length(run: Run) -> float:
    """The L2 norm of the vectors in the file."""
    return stored_length(run("SELECT vectors_per_row FROM gallery").fetchone()[0])
