"""Reading a gallery's files. A picture that is found to be damaged is named and left out.

All reads of one block see one snapshot of the database.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import warnings
import weakref
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery.damage import Fault, Remedy
from finegrain.gallery.filters.conditions import Condition, Value
from finegrain.gallery.filters.sql import to_sql
from finegrain.gallery.filters.syntax import parse
from finegrain.gallery.row import Place, Row
from finegrain.gallery.sqlite.biases import (
    bias_revision,
    biases_of,
    biases_since,
)
from finegrain.gallery.sqlite.connections import (
    Connections,
    as_gallery_errors,
    identity,
    limited,
)
from finegrain.gallery.sqlite.rows import (
    ALIVE,
    AMONG,
    EXPIRED,
    Run,
    select_column,
    select_places,
    select_rows,
    select_thumbnails,
    select_values,
)
from finegrain.gallery.sqlite.schema import open_database, short
from finegrain.gallery.sqlite.vector_upkeep import VectorUpkeep
from finegrain.gallery.sqlite.vectors import StoredVectors, ids_of, state_of
from finegrain.index.block import StoredBlock
from finegrain.index.exact import Ids, Vectors
from finegrain.records import Scalar

_CHUNK_ROWS = 8192
_SHOWN = 20


class Moment(NamedTuple):
    """What changes whenever the pictures, vectors or biases of a gallery do.

    Attributes:
        identity: Identity of the file of vectors; None before the first addition.
        num_slots: Number of places for vectors in use.
        deletions: A counter of deletions.
        bias_revision: The number of the last change of biases.
        num_damaged: Number of pictures that were found to be damaged.
    """

    identity: str | None
    num_slots: int
    deletions: int
    bias_revision: int
    num_damaged: int


class StoreReader:
    """Reads the rows and vectors of a gallery. Every method may be called from any thread.

    Args:
        path: Path of the database.
        fingerprint, dim, create, vectors_per_row: As in :class:`~finegrain.gallery.Gallery`.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None,
        dim: int | None,
        create: bool,
        vectors_per_row: int | None = None,
    ) -> None:
        database = open_database(
            path,
            fingerprint=fingerprint,
            dim=dim,
            create=create,
            vectors_per_row=vectors_per_row,
        )
        self.path = path
        self.fingerprint = database.fingerprint
        self.dim = database.dim
        self.vectors_per_row = database.vectors_per_row
        self.read_only = database.read_only
        self._lost_log = database.lost_log
        self._connections = Connections(path, database.connect, read_only=database.read_only)
        self._connections.adopt(database.connection)
        self._naming = threading.Lock()
        self.damaged: frozenset[int] = frozenset()
        """Ids of pictures whose row or vector was found to be damaged; no answer holds them. They
        stay here when their rows are deleted, since ids are never used again."""
        # Weak, so that a thread which still reads vectors does not keep a dropped gallery.
        name_damaged = weakref.WeakMethod(self._name_damaged_vectors)

        def on_damage(ids: Collection[int]) -> None:
            if (name := name_damaged()) is not None:
                name(ids)

        self._vectors = StoredVectors(path, read_only=database.read_only, on_damage=on_damage)
        self._upkeep = VectorUpkeep(self._vectors)

    def close(self) -> None:
        self._connections.close()
        self._vectors.close()

    def count(self) -> int:
        # Every query counts, so this must not read every row. SQLite counts a table without a
        # condition by pages, and finds expired rows by an index.
        total = "SELECT count(*) FROM picture"
        with self.reading() as run:
            return int(run(f"SELECT ({total}) - ({total} WHERE {EXPIRED})").fetchone()[0])

    def ids(self) -> Ids:
        """All ids, ascending."""
        with self.reading() as run:
            return self._intact(run(f"SELECT id FROM picture WHERE {ALIVE} ORDER BY id"))

    def ids_where(self, expression: str) -> Ids:
        """Ids of the rows that match a filter, ascending."""
        with self.reading():
            return self.ids_matching(parse(expression, self.columns()))

    def ids_matching(self, condition: Condition) -> Ids:
        """Ids of the rows that match a parsed filter, ascending."""
        with self.reading() as run:
            return self._matching(run, condition)

    def ids_matching_within(self, condition: Condition, num_steps: int) -> Ids | None:
        """Like :meth:`ids_matching`; None if it takes more than about so many steps of SQLite."""
        with self.reading() as run, self._connections.reading() as connection:
            try:
                with limited(connection, num_steps):
                    return self._matching(run, condition)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                return None

    def _matching(self, run: Run, condition: Condition) -> Ids:
        sql = to_sql(condition)
        cursor = run(f"SELECT id FROM picture WHERE {ALIVE} AND {sql.text}", sql.parameters)
        return np.sort(self._intact(cursor))

    def ids_expired(self, since: str, until: str) -> Ids:
        """Ids of stored rows that expired after ``since`` and not after ``until``."""
        with self.reading() as run:
            return ids_of(
                run(
                    "SELECT id FROM picture WHERE expires_at > ? AND expires_at <= ? ORDER BY id",
                    (since, until),
                )
            )

    def columns(self) -> dict[str, set[str]]:
        """Kinds of value that each metadata column has held."""
        columns: dict[str, set[str]] = {}
        with self.reading() as run:
            for name, kind in run("SELECT name, kind FROM seen ORDER BY name"):
                kinds = columns.setdefault(name, set())
                if kind != "null":
                    kinds.add(kind)
        return columns

    def images(self) -> set[str]:
        with self.reading() as run:
            cursor = run(f"SELECT image FROM picture WHERE image IS NOT NULL AND {ALIVE}")
            return {image for (image,) in cursor}

    def known(
        self, images: Iterable[str], *, with_damaged: bool = False
    ) -> dict[str | None, list[int]]:
        hidden = frozenset() if with_damaged else self.damaged
        known: dict[str | None, list[int]] = {}
        with self.reading() as run:
            for image in images:  # not as a JSON list: SQLite cuts a text at a null character there
                cursor = run(f"SELECT id FROM picture WHERE image = ? AND {ALIVE}", (image,))
                if ids := [id_ for (id_,) in cursor if id_ not in hidden]:
                    known[image] = ids
        return known

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Rows by id; an id that is not stored is left out."""
        with self.reading() as run:
            rows, damaged = select_rows(run, list(ids))
        self._name_damaged(damaged)
        return rows

    def groups(self, column: str, ids: Iterable[int]) -> dict[int, Scalar]:
        """Value of one column by id; ids that are not stored or have no value are left out."""
        with self.reading() as run:
            groups = select_column(run, column, ids)
        return {id_: value for id_, value in groups.items() if id_ not in self.damaged}

    def values(self, column: str, limit: int) -> list[Value]:
        """Up to ``limit`` distinct values of a column."""
        with self.reading() as run:
            return select_values(run, column, limit)

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG thumbnails by id; pictures without one are left out."""
        with self.reading() as run:
            thumbnails, damaged = select_thumbnails(run, list(ids), ALIVE)
        if damaged:
            self._warn_of_damage(damaged, "the thumbnail")
        return thumbnails

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks.

        The file is not locked between two chunks.
        """
        while True:
            with self.reading() as run:
                rows = run(
                    f"SELECT id, vector_checksum FROM picture WHERE id > ? AND {ALIVE} "
                    "ORDER BY id LIMIT ?",
                    (last_id, _CHUNK_ROWS),
                ).fetchall()
                if not rows:
                    return
                ids, vectors = self._vectors_of(run, rows)
            last_id = rows[-1][0]
            if len(ids):
                yield ids, vectors

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        """Vectors ``[D]`` by id; an id that is not stored is left out."""
        with self.reading() as run:
            rows = run(
                f"SELECT id, vector_checksum FROM picture WHERE id {AMONG} ORDER BY id",
                (json.dumps(list(ids)),),
            ).fetchall()
            intact, vectors = self._vectors_of(run, rows)
        return dict(zip(intact.tolist(), vectors, strict=True))

    def damaged_now(self) -> frozenset[int]:
        """Ids of stored pictures whose damage was detected."""
        if not self.damaged:
            return self.damaged
        with self.reading() as run:
            among = (json.dumps(sorted(self.damaged)),)
            return frozenset(
                ids_of(run(f"SELECT id FROM picture WHERE id {AMONG}", among)).tolist()
            )

    def damaged_among(self, ids: Iterable[int]) -> set[int]:
        """Ids of the damaged pictures among some; reads their vectors and thumbnails."""
        asked = list(ids)
        self.vectors(asked)
        with self.reading() as run:
            _, damaged = select_thumbnails(run, asked, ALIVE)
        return {*damaged, *self.damaged.intersection(asked)}

    def _vectors_of(self, run: Run, rows: Sequence[tuple[int, int]]) -> tuple[Ids, Vectors]:
        """The intact vectors of pictures, by ids and checksums; damaged ones are named."""
        ids, vectors, damaged = self._vectors.read(run, rows)
        self._name_damaged_vectors(damaged)
        if self.damaged.isdisjoint(ids.tolist()):
            return ids, vectors
        intact = [row for row, id_ in enumerate(ids.tolist()) if id_ not in self.damaged]
        return ids[intact], vectors[intact]

    def vector_faults(self, run: Run) -> Iterator[Fault]:
        """Descriptions of all damage to the vectors and their codes; reads all of them."""
        with self._errors():
            yield from self._upkeep.faults(run)

    def slots(self) -> tuple[int, int]:
        """Number of places for vectors in use, and of full blocks of them."""
        with self.reading() as run:
            return state_of(run).num_slots, self._vectors.blocks(run)[1]

    def moment(self) -> Moment:
        """Tells whether anything that a search reads has changed; reads one row."""
        with self.reading() as run:
            identity, num_slots, deletions, revision = run(
                "SELECT identity, num_slots, deletions, bias_revision FROM gallery, vector_file"
            ).fetchone()
        return Moment(identity, num_slots, deletions, revision, len(self.damaged))

    def blocks(self) -> tuple[str | None, int]:
        """Identity of the file of vectors, and the number of its blocks that have codes."""
        with self.reading() as run:
            return self._vectors.blocks(run)

    def block(self, number: int) -> StoredBlock:
        """A full block of vectors; it may hold pictures that have expired or are damaged."""
        with self.reading() as run:
            return self._vectors.block(run, number)

    def lost_ids(self) -> Ids:
        """Ids of pictures that were deleted at any time, or are damaged."""
        with self.reading() as run:
            lost = self._vectors.lost_ids(run)
        return np.concatenate([lost, np.array(sorted(self.damaged), np.int64)])

    def _intact(self, cursor: sqlite3.Cursor) -> Ids:
        """The ids that a query selects, without those of damaged pictures."""
        return ids_of(
            cursor if not self.damaged else (r for r in cursor if r[0] not in self.damaged)
        )

    def places(self) -> Iterator[Place]:
        """Origin of each picture that has a path, by ascending id; read in chunks."""
        last = 0
        while True:
            with self.reading() as run:
                chunk = select_places(run, last, _CHUNK_ROWS)
            yield from (place for place in chunk if place.id not in self.damaged)
            if not chunk:
                return
            last = chunk[-1].id

    def has_numbered_pids(self) -> bool:
        """Whether an older version may have replaced some pids with numbers of its own."""
        with self.reading() as run:
            cursor = run(
                "SELECT EXISTS (SELECT 1 FROM picture WHERE typeof(pid) = 'integer' "
                "AND size IS NULL AND id <= (SELECT numbered_until FROM gallery))"
            )
            return bool(cursor.fetchone()[0])

    def biases(self, ids: Iterable[int]) -> dict[int, float]:
        """Biases by id; ids that were never given one are left out."""
        with self.reading() as run:
            biases = biases_of(run, ids)
        self._name_damaged(biases.damaged, "the bias")
        return dict(zip(biases.ids.tolist(), biases.values.tolist(), strict=True))

    def bias_revision(self) -> int:
        """A counter that grows when any process changes biases."""
        with self.reading() as run:
            return bias_revision(run)

    def biases_since(self, revision: int) -> tuple[Ids, Vectors]:
        """Ids, ascending, and biases of pictures that were changed after a revision."""
        with self.reading() as run:
            biases = biases_since(run, revision)
        self._name_damaged(biases.damaged, "the bias")
        return biases.ids, biases.values

    def deletions(self) -> int:
        """A counter that grows when any process deletes rows."""
        with self.reading() as run:
            return int(run("SELECT deletions FROM gallery").fetchone()[0])

    def _name_damaged(self, ids: Collection[int], what: str = "the row") -> None:
        """Warn of damaged pictures, once each, and leave them out of all answers."""
        with self._naming:  # searches name damage from several threads
            new = sorted(set(ids) - self.damaged)
            self.damaged |= set(new)
        if new:
            self._warn_of_damage(new, what)

    def _name_damaged_vectors(self, ids: Collection[int]) -> None:
        self._name_damaged(ids, "the vector")

    def _warn_of_damage(self, ids: Sequence[int], what: str) -> None:
        warnings.warn(
            f"{self.path}: {what} of {pictures_named(ids)} is damaged and left out of answers. "
            f"Restore the gallery from a backup. Or: {Remedy.INDEX.value}",
            GalleryWarning,
            stacklevel=4,
        )

    def erased(self) -> bool:
        """Whether all bytes of deleted pictures are erased."""
        with self.reading() as run:
            deletions, erased = run("SELECT deletions, scrubbed FROM gallery").fetchone()
            return bool(erased >= deletions)

    @contextmanager
    def reading(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """The ``execute`` of a connection that sees one snapshot of the file.

        Errors of SQLite become :class:`GalleryError`.
        """
        nested = self._connections.in_transaction()
        with self._errors(), self._connections.reading() as connection:
            if not nested:
                self._check_identity(connection)
            yield connection.execute

    def _errors(self) -> AbstractContextManager[None]:
        return as_gallery_errors(self.path)

    def _check_identity(self, connection: sqlite3.Connection) -> None:
        """Check that the vectors in the file are still of the plan it was opened for."""
        own = self.fingerprint, self.dim
        stored = identity(connection, self.path)
        if stored != own:
            with self._connections.lock:  # another thread may be switching plans
                own = self.fingerprint, self.dim
        if stored != own:
            raise GalleryError(
                f"{self.path} has been reindexed with plan {short(stored[0])} since it was "
                f"opened for plan {short(own[0])}. Open it again with the new plan."
            )


def pictures_named(ids: Sequence[int]) -> str:
    """The first ids for a message, and the number of the others."""
    shown = f"picture{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids[:_SHOWN]))}"
    return f"{shown} and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else shown
