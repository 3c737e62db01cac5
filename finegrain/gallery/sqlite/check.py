"""Integrity checks of a gallery's file: those of SQLite, and those of its content."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from finegrain.gallery.damage import faults_of
from finegrain.gallery.sqlite.backup import tokens_of
from finegrain.gallery.sqlite.connections import as_gallery_errors
from finegrain.gallery.sqlite.expiry import doubted
from finegrain.gallery.sqlite.files import vectors_of
from finegrain.gallery.sqlite.rows import Run, damaged_rows, damaged_thumbnails
from finegrain.gallery.sqlite.store import Store

MAX_FAULTS = 20
"""Most faults of one kind that a report lists."""

_CHUNK_ROWS = 8192

# Each query selects the ids of pictures with one kind of fault.
_QUERIES = {
    "ids above the last assigned id": (
        "SELECT id FROM picture WHERE id > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence "
        "WHERE name = 'picture')"
    ),
    "pictures with an invalid time": (
        "SELECT id FROM picture WHERE added_at NOT GLOB :time OR coalesce(time, added_at) NOT GLOB "
        ":time OR coalesce(expires_at, added_at) NOT GLOB :time"
    ),
    "pictures with a metadata value of the wrong kind": (
        "SELECT DISTINCT picture FROM attribute WHERE CASE kind WHEN 'null' THEN value IS NOT NULL "
        "WHEN 'text' THEN typeof(value) != 'text' WHEN 'boolean' THEN value NOT IN (0, 1) "
        "WHEN 'number' THEN typeof(value) NOT IN ('integer', 'real') ELSE 1 END"
    ),
    "pictures with a metadata column that filters do not know": (
        "SELECT DISTINCT picture FROM attribute "
        "WHERE (name, kind) NOT IN (SELECT name, kind FROM seen)"
    ),
    "pictures whose thumbnail is not a JPEG file": (
        "SELECT picture FROM thumbnail WHERE substr(jpeg, 1, 3) != x'FFD8FF'"
    ),
}
_TIME = "dddd-dd-ddTdd:dd:dd.dddZ".replace("d", "[0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryReport:
    """Result of :meth:`Gallery.check`.

    Attributes:
        path: Path of the file.
        num_pictures: Number of pictures, including expired ones.
        faults: Damage to the file.
        remarks: Observations that are not damage.
    """

    path: Path
    num_pictures: int
    faults: list[str]
    remarks: list[str]

    @property
    def is_valid(self) -> bool:
        """Whether the file has no faults."""
        return not self.faults

    def __str__(self) -> str:
        verdict = "valid" if self.is_valid else "INVALID"
        lines = [f"{self.path}: {verdict}; {self.num_pictures} pictures"]
        lines += [f"fault: {fault}" for fault in self.faults]
        if self.faults:
            lines += ["restore it from a backup, or index the pictures again"]
        return "\n  ".join(lines + [f"remark: {remark}" for remark in self.remarks])


def check(store: Store) -> GalleryReport:
    """Read the database and the vectors, and check them.

    Raises:
        GalleryError: The file is too damaged to be read.
    """
    with store.reading() as run:
        (count,) = run("SELECT count(*) FROM picture").fetchone()
        faults = [*_database_faults(run), *_vector_faults(store.vector_faults(run))]
        for what, query in _QUERIES.items():
            ids = [id_ for (id_,) in run(query, {"time": _TIME} if ":time" in query else ())]
            faults += [f"{what}: {_shown(ids)}"] if ids else []
        for what, damaged in (
            ("pictures whose columns do not agree with their checksum", damaged_rows(run)),
            ("pictures whose thumbnail does not agree with its checksum", damaged_thumbnails(run)),
        ):
            ids = list(damaged)
            faults += [f"{what}: {_shown(ids)}"] if ids else []
        draft = run("SELECT dim FROM reindexing").fetchone()
        if draft is not None:
            faults += _vector_faults(_draft_faults(run, draft[0]))
        stored = {id_ for (id_,) in run("SELECT id FROM picture")}
    with as_gallery_errors(tokens_of(store.path)):
        token_faults, remarks = _tokens(tokens_of(store.path), stored)
    return GalleryReport(
        path=store.path,
        num_pictures=count,
        faults=faults + token_faults,
        remarks=remarks + list(_remarks(store)),
    )


def _database_faults(run: Run) -> Iterator[str]:
    for (text,) in run(f"PRAGMA integrity_check({MAX_FAULTS})"):
        if text != "ok":
            yield f"database: {text}"
    orphans = run("PRAGMA foreign_key_check").fetchall()
    if orphans:
        tables = ", ".join(sorted({row[0] for row in orphans}))
        yield f"{len(orphans)} rows of {tables} belong to no picture"


def _vector_faults(vector_faults: Iterable[str]) -> list[str]:
    faults = list(vector_faults)
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"and {len(faults) - MAX_FAULTS} more faults of vectors"]
    return faults


def _draft_faults(run: Run, dim: int) -> Iterator[str]:
    """Faults of the vectors of a reindexing that is not finished."""
    last = 0
    while chunk := run(
        "SELECT picture, data, checksum FROM next_vector WHERE picture > ? ORDER BY picture "
        "LIMIT ?",
        (last, _CHUNK_ROWS),
    ).fetchall():
        for id_, fault in faults_of(chunk, dim):
            yield f"vector of picture {id_} {fault}"
        last = chunk[-1][0]


def _tokens(path: Path, stored: set[int]) -> tuple[list[str], list[str]]:
    """Faults of the token file of a gallery, and remarks on it."""
    if not path.exists():
        return [], []
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            damage = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            token_ids = {id_ for (id_,) in connection.execute("SELECT id FROM record")}
    except sqlite3.DatabaseError as error:
        damage, token_ids = str(error), set()
    if damage != "ok":
        return [
            f"{path.name}: {damage}; remove it, it will be computed again from the pictures"
        ], []
    if deleted := sorted(token_ids - stored):
        return [], [f"{path.name} holds tokens of deleted pictures: {_shown(deleted)}"]
    return [], []


def _remarks(store: Store) -> Iterator[str]:
    if not store.erased():
        yield "bytes of deleted pictures are still to be erased"
    with store.reading() as run:
        moment = doubted(run)
    if moment is not None:
        yield f"the clock showed {moment} once, which is not trusted yet"
    for path in (store.path, vectors_of(store.path), tokens_of(store.path)):
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if os.name == "posix" and mode & 0o077:
                yield f"{path.name} may be read by others (mode {mode:o}); chmod 600 forbids it"


def _shown(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:MAX_FAULTS]))
    return f"{shown} and {len(ids) - MAX_FAULTS} more" if len(ids) > MAX_FAULTS else shown
