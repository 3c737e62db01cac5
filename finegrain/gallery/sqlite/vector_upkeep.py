"""Keeps the file of a gallery's vectors in agreement with its database.

It compares the two, repairs what differs, overwrites the vectors of deleted pictures, and writes
new files: without deleted places, for another plan, or for a copy.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finegrain.errors import GalleryError
from finegrain.gallery.damage import Fault, Remedy
from finegrain.gallery.entries import not_normalised
from finegrain.gallery.sqlite import vector_file
from finegrain.gallery.sqlite.comparison import Comparison, Slots, compare
from finegrain.gallery.sqlite.files import next_vectors_of, sync_folder, vectors_of
from finegrain.gallery.sqlite.rows import Run
from finegrain.gallery.sqlite.vector_file import StoredRows, VectorFile, checksums_of
from finegrain.gallery.sqlite.vectors import (
    LARGEST_SUM,
    State,
    StoredVectors,
    hash_sum,
    ids_of,
    length_of,
    pairs_of,
    state_of,
)
from finegrain.index.estimate import Ids, Rows

TOLERATED = 8
"""Most pictures whose vector may be wrong before the file is taken for another one's. It is a
hundredth of the pictures, if that is more."""


class VectorUpkeep:
    """Checks and repairs the file of vectors, and removes deleted ones from it.

    A method that takes a connection is called inside a write transaction.

    Args:
        vectors: The vectors.
    """

    def __init__(self, vectors: StoredVectors) -> None:
        self._vectors = vectors
        self._path = vectors.path

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
        file = self._vectors.opened(state)
        if file is None:
            return None
        erasing = pairs_of(run("SELECT id, checksum FROM erasing"))
        if not each_row and _agrees(file, state, erasing):
            return None
        slots = _slots(file, state.num_slots)
        pictures = pairs_of(run("SELECT id, vector_checksum FROM picture ORDER BY id"))
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

    def faults(self, run: Run) -> Iterator[Fault]:
        """Descriptions of all damage to vectors and codes; reads all of them.

        Raises:
            GalleryError: The file is missing, or is not of the same gallery and moment.
        """
        name = vectors_of(self._path).name
        comparison = self.verify(run, each_row=True)
        state = state_of(run)
        file = self._vectors.opened(state)
        if comparison is None or file is None:
            return
        if not self._vectors.is_in_place(file):
            yield Fault(f"{name} was removed, or replaced by another file", Remedy.RESTORE)
        for id_ in comparison.recovered:
            yield Fault(f"id or checksum of picture {id_} in {name} is damaged", Remedy.COMPACT)
        for id_ in comparison.missing:
            yield Fault(f"vector of picture {id_} is missing, or is another one", Remedy.INDEX)
        if len(comparison.strays):
            yield Fault(f"{name} holds {len(comparison.strays)} deleted vectors", Remedy.COMPACT)
        for block in range(-(-state.num_slots // file.block_rows)):
            ids = file.ids(block)
            ids[np.isin(ids, ids_of(run("SELECT id FROM erasing")))] = 0
            rows = np.flatnonzero(ids > 0)
            slots = rows + block * file.block_rows
            slots, rows = slots[slots < state.num_slots], rows[slots < state.num_slots]
            vectors = file.vectors(slots)
            intact = checksums_of(vectors) == file.checksums(block)[rows]
            for id_ in ids[rows[~intact]].tolist():
                text = f"vector of picture {id_} does not agree with its checksum"
                yield Fault(text, Remedy.INDEX)
            invalid = not_normalised(vectors[intact], length_of(run))
            for id_ in ids[rows[intact]][invalid].tolist():
                yield Fault(f"vector of picture {id_} does not have length 1", Remedy.INDEX)
            if (block + 1) * file.block_rows <= state.num_slots:
                for first, last in file.damaged_codes(block):
                    text = f"codes of the vectors of pictures {first} to {last} are damaged"
                    yield Fault(text, Remedy.COMPACT)

    def erase(self, connection: sqlite3.Connection) -> None:
        """Overwrite the vectors of deleted pictures; no reader sees them any more."""
        state = state_of(connection.execute)
        ids, checksums = pairs_of(
            connection.execute("SELECT id, checksum FROM erasing ORDER BY id")
        )
        if not len(ids):
            return
        file = self._vectors.opened(state)
        if file is not None:
            self._vectors.require_in_place(connection.execute, "erased")
            # Ids are negated first, so an erasure that was interrupted has done that already.
            slots = file.slots_of(ids, state.num_slots, deleted=True)
            if (slots < 0).any():
                slots = self._erase_strays(connection, file, ids)
            file.erase(slots[slots >= 0])
        connection.execute(
            "UPDATE vector_file SET total = ?",
            ((state.total - hash_sum(ids, checksums)) & LARGEST_SUM,),
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
        file = self._vectors.opened(state_of(run))
        if comparison is None or file is None:
            return []
        file.write_corrections()
        file.erase_strays(comparison.strays)
        pictures = hash_sum(*pairs_of(run("SELECT id, vector_checksum FROM picture")))
        erasing = hash_sum(*pairs_of(run("SELECT id, checksum FROM erasing")))
        run("UPDATE vector_file SET total = ?", ((pictures + erasing) & LARGEST_SUM,))
        return comparison.recovered

    def tidy(self, connection: sqlite3.Connection) -> None:
        """Overwrite what writes that were undone, or cut off, have left."""
        state = state_of(connection.execute)
        file = self._vectors.opened(state)
        if file is None:
            vectors_of(self._path).unlink(missing_ok=True)
        elif file.holds_more_than(state.num_slots):
            file.cut_off(state.num_slots)
        next_vectors_of(self._path).unlink(missing_ok=True)

    def is_untidy(self, run: Run) -> bool:
        """Whether :meth:`tidy` has something to do, if no other process is writing."""
        state = state_of(run)
        file = self._vectors.opened(state)
        if next_vectors_of(self._path).exists():
            return True
        if file is None:
            return vectors_of(self._path).exists()
        return file.holds_more_than(state.num_slots)

    def is_mostly_deleted(self, run: Run) -> bool:
        """Whether deleted pictures take more slots than others, and more than a block."""
        state = state_of(run)
        (count,) = run("SELECT count(*) FROM picture").fetchone()
        return state.num_slots - int(count) > max(int(count), vector_file.BLOCK_ROWS)

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
            (identity, num_slots, total & LARGEST_SUM),
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
        file = self._vectors.opened(state_of(run))
        if state.identity is None or file is None:
            return
        identity = secrets.token_hex(16)
        copy = file.copied(target, identity, state.num_slots)
        try:
            ids, checksums = pairs_of(
                copied.execute("SELECT id, checksum FROM erasing ORDER BY id")
            )
            slots = copy.slots_of(ids, state.num_slots, deleted=True)
            copy.erase(slots[slots >= 0])
            copied.execute(
                "UPDATE vector_file SET identity = ?, total = ?",
                (identity, (state.total - hash_sum(ids, checksums)) & LARGEST_SUM),
            )
            copied.execute("DELETE FROM erasing")
        finally:
            copy.close()


def _agrees(file: VectorFile, state: State, erasing: tuple[Ids, npt.NDArray[np.int64]]) -> bool:
    """Whether the ids are in order, and the sum of the hashes is the one that is stated."""
    total = hash_sum(*erasing)
    last = 0
    # New memory for all slots would cost more than reading them.
    for block in range(-(-state.num_slots // file.block_rows)):
        used = slice(0, state.num_slots - block * file.block_rows)
        ids, checksums = file.stored_ids(block)[used], file.stored_checksums(block)[used]
        if not (np.diff(np.abs(ids), prepend=last) > 0).all():
            return False
        last = abs(int(ids[-1]))
        alive = (ids > 0) & ~np.isin(ids, erasing[0])
        total += hash_sum(ids[alive], checksums[alive])
    return total & LARGEST_SUM == state.total


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
