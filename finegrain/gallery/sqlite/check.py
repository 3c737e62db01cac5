"""Integrity checks of a gallery's file: those of SQLite, and those of its content."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finegrain.gallery.damage import Fault, Remedy, faults_of
from finegrain.gallery.sqlite.backup import tokens_of
from finegrain.gallery.sqlite.biases import biases_since
from finegrain.gallery.sqlite.connections import as_gallery_errors
from finegrain.gallery.sqlite.expiry import doubted
from finegrain.gallery.sqlite.files import codes_of, vectors_of
from finegrain.gallery.sqlite.rows import Run, damaged_rows, damaged_thumbnails
from finegrain.gallery.sqlite.store import Store

MAX_FAULTS = 20
"""Most faults of one kind that a report lists."""

_CHUNK_ROWS = 8192

_TIME = "dddd-dd-ddTdd:dd:dd.dddZ".replace("d", "[0-9]")


class _Query(NamedTuple):
    """Selects the ids of the pictures with one kind of fault."""

    what: str
    remedy: Remedy
    sql: str

    def faults(self, run: Run) -> Iterator[Fault]:
        ids = [id_ for (id_,) in run(self.sql, {"time": _TIME} if ":time" in self.sql else ())]
        if ids:
            yield Fault(f"{self.what}: {_shown(ids)}", self.remedy)


_QUERIES = (
    _Query(
        "ids above the last assigned id",
        Remedy.COMPACT,
        "SELECT id FROM picture WHERE id > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence "
        "WHERE name = 'picture')",
    ),
    _Query(
        "pictures with an invalid time",
        Remedy.INDEX,
        "SELECT id FROM picture WHERE added_at NOT GLOB :time OR coalesce(time, added_at) NOT GLOB "
        ":time OR coalesce(expires_at, added_at) NOT GLOB :time",
    ),
    _Query(
        "pictures with a metadata value of the wrong kind",
        Remedy.INDEX,
        "SELECT DISTINCT picture FROM attribute WHERE CASE kind WHEN 'null' THEN value IS NOT NULL "
        "WHEN 'text' THEN typeof(value) != 'text' WHEN 'boolean' THEN value NOT IN (0, 1) "
        "WHEN 'number' THEN typeof(value) NOT IN ('integer', 'real') ELSE 1 END",
    ),
    _Query(
        "pictures with a metadata column that filters do not know",
        Remedy.COMPACT,
        "SELECT DISTINCT picture FROM attribute "
        "WHERE (name, kind) NOT IN (SELECT name, kind FROM seen)",
    ),
    _Query(
        "pictures whose thumbnail is not a JPEG file",
        Remedy.INDEX,
        "SELECT picture FROM thumbnail WHERE substr(jpeg, 1, 3) != x'FFD8FF'",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryReport:
    """Result of :meth:`Gallery.check`.

    Attributes:
        path: Path of the file.
        num_pictures: Number of pictures, including expired ones.
        faults: Damage to the file.
        advice: What repairs the faults.
        remarks: Observations that are not damage.
    """

    path: Path
    num_pictures: int
    faults: list[str]
    advice: list[str]
    remarks: list[str]

    @property
    def is_valid(self) -> bool:
        """Whether the file has no faults."""
        return not self.faults

    def __str__(self) -> str:
        verdict = "valid" if self.is_valid else "INVALID"
        lines = [f"{self.path}: {verdict}; {self.num_pictures} pictures"]
        lines += [f"fault: {fault}" for fault in self.faults]
        lines += [f"advice: {advice}" for advice in self.advice]
        return "\n  ".join(lines + [f"remark: {remark}" for remark in self.remarks])


def check(store: Store) -> GalleryReport:
    """Read the database and the vectors, and check them.

    Raises:
        GalleryError: The file is too damaged to be read.
    """
    with store.reading() as run:
        (count,) = run("SELECT count(*) FROM picture").fetchone()
        faults = [*_database_faults(run), *_shortened(store.vector_faults(run))]
        faults += [fault for query in _QUERIES for fault in query.faults(run)]
        for what, damaged in (
            ("pictures whose columns do not agree with their checksum", damaged_rows(run)),
            ("pictures whose thumbnail does not agree with its checksum", damaged_thumbnails(run)),
            ("pictures whose bias does not agree with its checksum", biases_since(run, -1).damaged),
        ):
            ids = list(damaged)
            faults += [Fault(f"{what}: {_shown(ids)}", Remedy.INDEX)] if ids else []
        draft = run("SELECT dim FROM reindexing").fetchone()
        if draft is not None:
            faults += _shortened(_draft_faults(run, draft[0]))
        stored = {id_ for (id_,) in run("SELECT id FROM picture")}
    with as_gallery_errors(tokens_of(store.path)):
        token_faults, remarks = _tokens(tokens_of(store.path), stored)
    return GalleryReport(
        path=store.path,
        num_pictures=count,
        faults=[fault.text for fault in faults] + token_faults,
        advice=list(dict.fromkeys(fault.remedy.value for fault in faults)),
        remarks=remarks + list(_remarks(store)),
    )


def _database_faults(run: Run) -> Iterator[Fault]:
    for (text,) in run(f"PRAGMA integrity_check({MAX_FAULTS})"):
        if text != "ok":
            yield Fault(f"database: {text}", Remedy.RESTORE)
    orphans = run("PRAGMA foreign_key_check").fetchall()
    if orphans:
        tables = ", ".join(sorted({row[0] for row in orphans}))
        yield Fault(f"{len(orphans)} rows of {tables} belong to no picture", Remedy.RESTORE)


def _shortened(vector_faults: Iterable[Fault]) -> list[Fault]:
    """The first faults of each remedy, and the number of the others."""
    by_remedy: dict[Remedy, list[Fault]] = {}
    for fault in vector_faults:
        by_remedy.setdefault(fault.remedy, []).append(fault)
    for remedy, faults in by_remedy.items():
        if (num_more := len(faults) - MAX_FAULTS) > 0:
            faults[MAX_FAULTS:] = [Fault(f"and {num_more} more faults of vectors", remedy)]
    return [fault for faults in by_remedy.values() for fault in faults]


def _draft_faults(run: Run, dim: int) -> Iterator[Fault]:
    """Faults of the vectors of a reindexing that is not finished."""
    last = 0
    while chunk := run(
        "SELECT picture, data, checksum FROM next_vector WHERE picture > ? ORDER BY picture "
        "LIMIT ?",
        (last, _CHUNK_ROWS),
    ).fetchall():
        for id_, fault in faults_of(chunk, dim):
            yield Fault(f"vector of picture {id_} {fault}", Remedy.REINDEX)
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
    for name in (Path, vectors_of, tokens_of, codes_of):
        path = name(store.path)
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if os.name == "posix" and mode & 0o077:
                yield f"{path.name} may be read by others (mode {mode:o}); chmod 600 forbids it"


def _shown(ids: list[int]) -> str:
    shown = ", ".join(map(str, ids[:MAX_FAULTS]))
    return f"{shown} and {len(ids) - MAX_FAULTS} more" if len(ids) > MAX_FAULTS else shown
