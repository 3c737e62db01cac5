"""The gallery's file: one SQLite database that loses no acknowledged write.

Vectors and thumbnails have tables of their own, so that a filter reads neither. Ids are
never given twice, which lets an index in memory follow the file by "ids above the last".
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from finegrain.errors import GalleryError
from finegrain.gallery.entries import Entry
from finegrain.gallery.filter_sql import to_sql
from finegrain.gallery.filter_syntax import parse
from finegrain.gallery.filters import kind_of
from finegrain.gallery.index import Ids, Vectors
from finegrain.gallery.schema import as_gallery_errors, open_database, transaction
from finegrain.records import Scalar

_CHUNK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture of a gallery, without its vector.

    Attributes:
        id: Never given to another picture, even after a deletion.
        image: Path of the picture, or None when it came as pixels.
        pid: Identity, where known.
        camera: Name of the camera, where known.
        metadata: Further columns, in alphabetical order.
        added_at: UTC, as ``2026-01-31T12:00:00Z``.
    """

    id: int
    image: str | None
    pid: int | None
    camera: str | None
    metadata: Mapping[str, Scalar]
    added_at: str


class Store:
    """The database behind a gallery. Every method may be called from any thread."""

    def __init__(
        self, path: Path, *, fingerprint: str | None, dim: int | None, create: bool
    ) -> None:
        database = open_database(path, fingerprint=fingerprint, dim=dim, create=create)
        self.path = path
        self.fingerprint = database.fingerprint
        self.dim = database.dim
        self._connection = database.connection
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def count(self) -> int:
        with self._reading() as run:
            return int(run("SELECT count(*) FROM picture").fetchone()[0])

    def ids(self) -> Ids:
        """All ids, ascending."""
        with self._reading() as run:
            return _ids(run("SELECT id FROM picture ORDER BY id"))

    def ids_where(self, expression: str) -> Ids:
        """Ids of the rows that match a filter, ascending."""
        with self._reading() as run:
            condition = to_sql(parse(expression, self.columns()))
            return np.sort(
                _ids(run(f"SELECT id FROM picture WHERE {condition.text}", condition.parameters))
            )

    def columns(self) -> dict[str, set[str]]:
        """Kinds of value that each metadata column has held."""
        columns: dict[str, set[str]] = {}
        with self._reading() as run:
            for name, kind in run("SELECT name, kind FROM seen ORDER BY name"):
                kinds = columns.setdefault(name, set())
                if kind != "null":
                    kinds.add(kind)
        return columns

    def images(self) -> set[str]:
        with self._reading() as run:
            return {image for (image,) in run("SELECT image FROM picture WHERE image IS NOT NULL")}

    def rows(self, ids: Iterable[int]) -> dict[int, Row]:
        """Those of the rows that are there, by id."""
        wanted = json.dumps(list(ids))
        among = "IN (SELECT value FROM json_each(?))"
        metadata: dict[int, dict[str, Scalar]] = {}
        with self._reading() as run:
            for picture, name, kind, value in run(
                f"SELECT picture, name, kind, value FROM attribute WHERE picture {among}",
                (wanted,),
            ):
                found = bool(value) if kind == "boolean" else value
                metadata.setdefault(picture, {})[name] = found
            pictures = run(
                f"SELECT id, image, pid, camera, added_at FROM picture WHERE id {among}",
                (wanted,),
            ).fetchall()
        return {
            id_: Row(
                id=id_,
                image=image,
                pid=pid,
                camera=camera,
                metadata=metadata.get(id_, {}),
                added_at=added_at,
            )
            for id_, image, pid, camera, added_at in pictures
        }

    def thumbnail(self, id_: int) -> bytes | None:
        with self._reading() as run:
            found = run("SELECT jpeg FROM thumbnail WHERE picture = ?", (id_,)).fetchone()
        return None if found is None else bytes(found[0])

    def vectors_after(self, last_id: int) -> Iterator[tuple[Ids, Vectors]]:
        """Ids above ``last_id`` with their vectors ``[n, D]``, ascending, in chunks."""
        with self._reading() as run:
            cursor = run(
                "SELECT picture, data FROM vector WHERE picture > ? ORDER BY picture", (last_id,)
            )
            while chunk := cursor.fetchmany(_CHUNK_ROWS):
                ids, blobs = zip(*chunk, strict=True)
                if any(not isinstance(b, bytes) or len(b) != 4 * self.dim for b in blobs):
                    raise GalleryError(
                        f"{self.path}: a stored vector does not have {self.dim} numbers. The file "
                        "is damaged; restore it from a copy or index the pictures again."
                    )
                vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(ids), self.dim)
                yield np.array(ids, np.int64), vectors.astype(np.float32, copy=False)

    def data_version(self) -> int:
        """A number that changes when another connection has written."""
        with self._reading() as run:
            return int(run("PRAGMA data_version").fetchone()[0])

    def insert(self, vectors: Vectors, entries: Sequence[Entry]) -> list[int]:
        """Write all rows in one transaction; durable when this returns."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._writing() as connection:
            (last,) = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'picture'"
            ).fetchone()
            ids = range(last + 1, last + 1 + len(entries))
            numbered = list(zip(ids, entries, strict=True))
            connection.executemany(
                "INSERT INTO picture VALUES (?, ?, ?, ?, ?)",
                ((id_, entry.image, entry.pid, entry.camera, now) for id_, entry in numbered),
            )
            connection.executemany(
                "INSERT INTO vector VALUES (?, ?)",
                zip(ids, (v.tobytes() for v in vectors.astype("<f4", copy=False)), strict=True),
            )
            connection.executemany(
                "INSERT INTO thumbnail VALUES (?, ?)",
                ((id_, entry.thumbnail) for id_, entry in numbered if entry.thumbnail is not None),
            )
            attributes = [
                (id_, name, _stored_kind(value), value)
                for id_, entry in numbered
                for name, value in entry.metadata.items()
            ]
            connection.executemany("INSERT INTO attribute VALUES (?, ?, ?, ?)", attributes)
            connection.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)",
                {(name, kind) for _, name, kind, _ in attributes},
            )
        return list(ids)

    def delete(self, ids: Iterable[int]) -> int:
        """Remove rows so that their bytes are gone from the file; returns how many.

        Raises:
            GalleryError: Among others when the rows are deleted but the file could not be
                rewritten, for lack of space.
        """
        with self._writing() as connection:
            removed = connection.execute(
                "DELETE FROM picture WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(ids)),),
            ).rowcount
        if removed:
            self._scrub()
        return removed

    def _scrub(self) -> None:
        """Rewrite the file without what was deleted.

        ``secure_delete`` zeroes the deleted cells themselves, but not the older copies of them
        that b-tree pages keep in unused space after a split or merge.
        """
        with self._reading() as run:
            run("VACUUM")
            run("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _reading(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._lock, as_gallery_errors(self.path):
            yield self._connection.execute

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, as_gallery_errors(self.path), transaction(self._connection):
            yield self._connection


def _ids(cursor: sqlite3.Cursor) -> Ids:
    return np.fromiter((row[0] for row in cursor), np.int64)


def _stored_kind(value: Scalar) -> str:
    return "null" if value is None else kind_of(value)
