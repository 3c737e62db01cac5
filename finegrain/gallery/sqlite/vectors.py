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
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.entries import not_normalised, stored_length
from finegrain.gallery.sqlite import vector_file
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
from finegrain.index.block import FiledVectors, StoredBlock
from finegrain.index.codes import FiledCodes
from finegrain.index.estimate import Ids, Vectors

LARGEST_SUM = (1 << 63) - 1


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
    return int(mixed.sum(dtype=np.uint64)) & LARGEST_SUM


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
        self.path = path
        self.read_only = read_only
        self._on_damage = on_damage
        self._lock = threading.Lock()
        self._source: VectorSource | None = None
        self._unsynced = False

    def close(self) -> None:
        """Let the file go; searches that still run may finish."""
        self._source = None

    def last_written(self, run: Run) -> int | None:
        """When the file was last written; None if there is none."""
        file = self.opened(state_of(run))
        return None if file is None else file.last_written()

    # --- reading, inside a transaction ----------------------------------------------------

    def read(self, run: Run, rows: Iterable[tuple[int, int]]) -> tuple[Ids, Vectors, list[int]]:
        """Read the vectors of stored pictures.

        Args:
            run: The ``execute`` of a connection.
            rows: Ids and checksums of the vectors of pictures in its snapshot, by ascending id.

        Returns:
            The ids of intact vectors, these vectors ``[n, D]``, and the ids of damaged ones.
        """
        ids, checksums = pairs_of(rows)
        state = state_of(run)
        file = self.opened(state)
        if file is None:
            return ids[:0], np.empty((0, 0), np.float32), ids.tolist()
        slots = file.slots_of(ids, state.num_slots)
        held = np.flatnonzero(slots >= 0)
        vectors = file.vectors(slots[held])
        intact = checksums_of(vectors) == checksums[held]
        intact[not_normalised(vectors, length_of(run))] = False
        places = held[intact]
        return ids[places], vectors[intact], np.delete(ids, places).tolist()

    def last_id(self, run: Run) -> int:
        """The highest id that was ever written; 0 if there is none."""
        state = state_of(run)
        file = self.opened(state)
        if file is None or not state.num_slots:
            return 0
        return abs(int(file.ids_at(np.array([state.num_slots - 1]))[0]))

    def blocks(self, run: Run) -> tuple[str | None, int]:
        """Identity of the file, and the number of its blocks that have codes."""
        state = state_of(run)
        file = self.opened(state)
        return state.identity, 0 if file is None else state.num_slots // file.block_rows

    def block(self, run: Run, number: int) -> StoredBlock:
        """A full block, without pictures that are deleted."""
        file, source = self.opened(state_of(run)), self._source
        if file is None or source is None:
            raise GalleryError(
                f"expected block {number} of {vectors_of(self.path)}, got a gallery without "
                "vectors. Open the gallery again."
            )
        ids = file.ids(number)
        slots = np.arange(len(ids)) + number * file.block_rows
        filed = FiledVectors(source, slots, file.checksums(number))
        kept = self._kept(run, ids)
        codes = FiledCodes(partial(file.codes, number), np.arange(len(ids)))
        return StoredBlock(ids, filed, codes).only(kept)

    def rows(self, run: Run) -> Iterator[StoredRows]:
        """The rows of present pictures as they are stored, by block."""
        state = state_of(run)
        file = self.opened(state)
        if file is None:
            return
        for block in range(-(-state.num_slots // file.block_rows)):
            used = slice(0, state.num_slots - block * file.block_rows)
            ids, checksums = file.ids(block)[used], file.checksums(block)[used]
            kept = np.flatnonzero(self._kept(run, ids))
            yield ids[kept], checksums[kept], file.vectors(kept + block * file.block_rows)

    def checksums(self, run: Run) -> tuple[Ids, Checksums]:
        """Ids of present pictures, ascending, and the CRC-32 of their vectors."""
        state = state_of(run)
        file = self.opened(state)
        if file is None or not state.num_slots:
            return np.empty(0, np.int64), np.empty(0, np.uint32)
        slots = range(-(-state.num_slots // file.block_rows))
        ids = np.concatenate([file.ids(block) for block in slots])[: state.num_slots]
        checksums = np.concatenate([file.checksums(block) for block in slots])[: state.num_slots]
        kept = self._kept(run, ids)
        return ids[kept], checksums[kept]

    def _kept(self, run: Run, ids: Ids) -> Mask:
        """Which rows of a block belong to present pictures."""
        kept: Mask = (ids > 0) & ~np.isin(ids, ids_of(run("SELECT id FROM erasing")))
        return kept

    def lost_ids(self, run: Run) -> Ids:
        """Ids of all pictures that were deleted since the file was created."""
        state = state_of(run)
        file = self.opened(state)
        lost = [ids_of(run("SELECT id FROM erasing"))]
        if file is not None:
            for block in range(-(-state.num_slots // file.block_rows)):
                ids = file.ids(block)
                lost.append(-ids[ids < 0])
        return np.concatenate(lost)

    # --- writing, inside a write transaction ----------------------------------------------

    def require_in_place(self, run: Run, what: str = "changed") -> None:
        """Check that the file is still the one that is next to the database.

        Args:
            run: The ``execute`` of a connection.
            what: What happens to the file next, for the message.

        Raises:
            GalleryError: It was removed or replaced.
        """
        file = self.opened(state_of(run))
        if file is not None and not self.is_in_place(file):
            raise GalleryError(
                f"{vectors_of(self.path)} was removed, or replaced by another file, since it was "
                f"opened. What would be {what} now would be lost. Bring it back, or restore a "
                "backup, and open the gallery again."
            )

    def is_in_place(self, file: VectorFile) -> bool:
        """Whether an open file is the one that is next to the database."""
        if file.is_at(vectors_of(self.path)):
            return True
        return self.read_only and file.is_at(next_vectors_of(self.path))

    def append(
        self, connection: sqlite3.Connection, ids: Ids, checksums: Checksums, vectors: Vectors
    ) -> None:
        """Write the vectors of new pictures; :meth:`sync` must follow before the commit."""
        state = state_of(connection.execute)
        file = self.opened(state)
        if file is None:
            file, state = self._begun(vectors.shape[1])
        self._unsynced = True
        file.append(state.num_slots, ids, checksums, vectors)
        connection.execute(
            "UPDATE vector_file SET identity = ?, num_slots = ?, total = ?",
            (
                file.identity,
                state.num_slots + len(ids),
                (state.total + hash_sum(ids, checksums)) & LARGEST_SUM,
            ),
        )

    def sync(self) -> None:
        """Flush what was appended."""
        if self._unsynced and self._source is not None:
            self._source.file.sync()
        self._unsynced = False

    # --- the file -------------------------------------------------------------------------

    def opened(self, state: State) -> VectorFile | None:
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
                f"{vectors_of(self.path)} ends early: it does not hold {state.num_slots} vectors. "
                "Restore both files of the gallery from one backup."
            )
        return file

    def _searched(self, identity: str) -> VectorFile:
        path, new = vectors_of(self.path), next_vectors_of(self.path)
        with suppress(FileNotFoundError, GalleryError):
            if VectorFile(new, writable=False).identity == identity:
                if self.read_only:
                    return VectorFile(new, writable=False)
                with suppress(FileNotFoundError):  # another process was faster
                    os.replace(new, path)
                sync_folder(path.parent)
        try:
            file = VectorFile(path, writable=not self.read_only)
        except FileNotFoundError as error:
            raise GalleryError(
                f"{path}, which holds the vectors of {self.path.name}, is missing. A gallery is "
                "both files together: bring it back, or restore a backup. Copy a gallery with: "
                "finegrain gallery backup FILE COPY"
            ) from error
        if file.identity != identity:
            raise GalleryError(
                f"{path} holds the vectors of another gallery than {self.path.name}, or of an "
                "earlier plan. Restore both files from one backup."
            )
        return file

    def _begun(self, dim: int) -> tuple[VectorFile, State]:
        """A new file for a gallery that has had no vectors yet."""
        path = vectors_of(self.path)
        identity = secrets.token_hex(16)
        file = VectorFile.create(
            path, width=dim, identity=identity, block_rows=vector_file.BLOCK_ROWS
        )
        sync_folder(path.parent)
        with self._lock:
            self._source = VectorSource(file, self._on_damage)
        return file, State(identity, 0, 0)


def ids_of(rows: Iterable[tuple[int]]) -> Ids:
    """The ids that a query selects."""
    return np.fromiter((id_ for (id_,) in rows), np.int64)


def pairs_of(rows: Iterable[tuple[int, int | None]]) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Ids and checksums; -1 for a checksum that is damaged."""
    pairs = np.array(
        [(id_, value if isinstance(value, int) else -1) for id_, value in rows], np.int64
    )
    pairs = pairs.reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def length_of(run: Run) -> float:
    """The L2 norm of the vectors in the file."""
    return stored_length(run("SELECT vectors_per_row FROM gallery").fetchone()[0])
