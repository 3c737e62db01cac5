"""Encoding all pictures of a gallery again with another plan, into a table until the switch."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from finegrain.errors import GalleryError
from finegrain.gallery.entries import checked_vectors
from finegrain.gallery.pictures import source_of
from finegrain.gallery.sqlite.moving import as_stored
from finegrain.gallery.sqlite.rows import (
    AMONG,
    blobs,
    remove_expired,
    remove_rows,
    select_thumbnails,
)
from finegrain.gallery.sqlite.schema import short
from finegrain.gallery.sqlite.store import Store
from finegrain.gallery.sqlite.vector_file import StoredRows
from finegrain.records import Problem

_CHUNK_ROWS = 1024  # thumbnails of one chunk are in memory at once
_MOVED_ROWS = 8192

_LACKING = "NOT EXISTS (SELECT 1 FROM next_vector WHERE next_vector.picture = picture.id)"


class EncodedPictures(Protocol):
    """A batch of encoded pictures, and those that cannot be read."""

    @property
    def positions(self) -> Sequence[int]: ...
    @property
    def embeddings(self) -> NDArray[np.float32]: ...
    @property
    def problems(self) -> Sequence[Problem]: ...


class PictureEncoder(Protocol):
    """An encoder of pictures, such as :class:`finegrain.encoder.Encoder`."""

    @property
    def embed_dim(self) -> int: ...
    def stream_images(self, sources: Sequence[Path | bytes]) -> Iterator[EncodedPictures]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """Result of a reindexing.

    Attributes:
        num_encoded: Number of pictures encoded by this call. Pictures that an earlier,
            interrupted call encoded are not encoded again.
        problems: Pictures that can no longer be read.
        switched: Whether the gallery now uses the new vectors. If there are problems, it does so
            only with ``drop_unreadable``.
    """

    num_encoded: int
    problems: list[Problem]
    switched: bool

    def __str__(self) -> str:
        lines = [f"encoded {self.num_encoded} pictures"]
        if self.problems:
            what = "dropped" if self.switched else "cannot read"
            lines += [f"{what} {len(self.problems)} pictures:"]
            lines += [str(problem) for problem in self.problems[:10]]
        if not self.switched:
            lines += [
                "the gallery keeps its old vectors; bring these pictures back and reindex again, "
                "or delete them by drop_unreadable=True, or --drop-unreadable"
            ]
        return "\n  ".join(lines)


def reindex(
    store: Store,
    encoder: PictureEncoder,
    fingerprint: str,
    *,
    drop_unreadable: bool,
    progress: bool,
    before_switch: Callable[[], None] = lambda: None,
) -> Reindexed:
    """Encode the pictures that lack a vector of the new plan, then switch to it.

    ``before_switch`` is called before each attempt to switch.

    Raises:
        GalleryError: The file cannot be written, or a reindexing with a third plan began.
    """
    if (store.fingerprint, store.dim) == (fingerprint, encoder.embed_dim):
        return Reindexed(num_encoded=0, problems=[], switched=True)
    draft = _Draft(store, fingerprint, encoder.embed_dim)
    draft.begin()
    problems: dict[int, Problem] = {}
    num_encoded = 0
    switched = False
    with tqdm(
        total=store.count(), initial=draft.count(), unit=" pictures", disable=not progress
    ) as bar:
        while not switched:
            for pictures in draft.lacking():
                num_encoded += _encode(draft, encoder, pictures, problems)
                bar.update(len(pictures))
            if problems and not drop_unreadable:
                break
            before_switch()
            switched = draft.switch(drop=problems)
    return Reindexed(
        num_encoded=num_encoded,
        problems=[problems[id_] for id_ in sorted(problems)],
        switched=switched,
    )


@dataclass(frozen=True, slots=True)
class _Picture:
    id: int
    image: str | None

    def problem(self, why: str) -> Problem:
        return Problem(where=self.image or f"picture {self.id}", why=why)


def _encode(
    draft: _Draft,
    encoder: PictureEncoder,
    pictures: Sequence[_Picture],
    problems: dict[int, Problem],
) -> int:
    """Encode pictures and store their vectors; return how many pictures could be read."""
    sources = {p: source for p in pictures if (source := draft.source(p)) is not None}
    for picture in pictures:
        if picture not in sources:
            problems[picture.id] = picture.problem("it has no file and no thumbnail")
    readable = list(sources)
    failed = dict.fromkeys(readable)
    faults: list[Problem] = []
    for batch in encoder.stream_images(list(sources.values())):
        encoded = [readable[position] for position in batch.positions]
        draft.keep([p.id for p in encoded], batch.embeddings)
        faults += batch.problems
        for picture in encoded:
            del failed[picture]
            problems.pop(picture.id, None)  # readable again
    for picture, fault in zip(failed, faults, strict=True):  # both in the order of the sources
        problems[picture.id] = picture.problem(fault.why)
    return len(readable) - len(failed)


class _Draft:
    """The vectors of the new plan, in a table of their own until the switch."""

    def __init__(self, store: Store, fingerprint: str, dim: int) -> None:
        self._store = store
        self._plan = (fingerprint, dim)

    def begin(self) -> None:
        """Continue an earlier draft of the same plan, or start again."""
        with self._store.writing() as connection:
            if connection.execute("SELECT * FROM reindexing").fetchone() != self._plan:
                connection.execute("DELETE FROM reindexing")
                connection.execute("DELETE FROM next_vector")
                connection.execute("INSERT INTO reindexing VALUES (?, ?)", self._plan)

    def count(self) -> int:
        with self._store.reading() as run:
            return int(run("SELECT count(*) FROM next_vector").fetchone()[0])

    def lacking(self) -> Iterator[list[_Picture]]:
        """Pictures without a vector of the plan, in chunks."""
        last = 0
        while True:
            with self._store.reading() as run:
                chunk = run(
                    f"SELECT id, image FROM picture WHERE id > ? AND {_LACKING} "
                    "ORDER BY id LIMIT ?",
                    (last, _CHUNK_ROWS),
                ).fetchall()
            if not chunk:
                return
            yield [_Picture(*row) for row in chunk]
            last = chunk[-1][0]

    def source(self, picture: _Picture) -> Path | bytes | None:
        return source_of(picture.image, lambda: self._thumbnail(picture.id))

    def _thumbnail(self, id_: int) -> bytes | None:
        """The thumbnail of a picture, which may have expired but not yet been deleted."""
        with self._store.reading() as run:
            return select_thumbnails(run, [id_])[0].get(id_)

    def keep(self, ids: Sequence[int], embeddings: NDArray[np.float32]) -> None:
        """Store vectors of the draft; durable once this returns."""
        vectors = blobs(checked_vectors(embeddings, self._plan[1]))
        with self._store.writing() as connection:
            self._check_own(connection)
            connection.executemany(
                # A picture may have been deleted since it was read.
                "INSERT OR REPLACE INTO next_vector SELECT id, ?, ? FROM picture WHERE id = ?",
                ((data, zlib.crc32(data), id_) for id_, data in zip(ids, vectors, strict=True)),
            )

    def switch(self, drop: Collection[int]) -> bool:
        """Replace the vectors in use by the draft.

        Args:
            drop: Pictures to delete if they still lack a vector.

        Returns:
            False if other pictures lack a vector because they were just added.
        """
        with self._store.switching() as connection:
            self._check_own(connection)
            remove_expired(connection)
            cursor = connection.execute(f"SELECT id FROM picture WHERE {_LACKING}")
            lacking = {id_ for (id_,) in cursor}
            if lacking - set(drop):
                return False
            remove_rows(connection, f"id {AMONG}", (json.dumps(list(lacking)),))
            self._store.replace_vectors(connection, self._plan[1], self._rows(connection))
            connection.execute("DELETE FROM next_vector")
            connection.execute("DELETE FROM reindexing")
            connection.execute("DELETE FROM bias")  # they belong to the vectors of the old plan
            connection.execute(
                "UPDATE gallery SET fingerprint = ?, dim = ?, deletions = deletions + 1", self._plan
            )
        return True

    def _rows(self, connection: sqlite3.Connection) -> Iterator[StoredRows]:
        """All vectors of the draft by ascending id, in chunks."""
        last = 0
        while chunk := connection.execute(
            "SELECT picture, data, checksum FROM next_vector WHERE picture > ? ORDER BY picture "
            "LIMIT ?",
            (last, _MOVED_ROWS),
        ).fetchall():
            yield as_stored(chunk, self._plan[1])
            last = chunk[-1][0]

    def _check_own(self, connection: sqlite3.Connection) -> None:
        plan = connection.execute("SELECT * FROM reindexing").fetchone()
        if plan != self._plan:
            raise GalleryError(
                f"{self._store.path}: the reindexing with plan {short(self._plan[0])} was "
                "overtaken by another one, which began later. Let that finish, or start again."
            )
