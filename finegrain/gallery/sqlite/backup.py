"""Consistent copies of a gallery, also while it is in use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

from finegrain.errors import GalleryError
from finegrain.gallery.sqlite.connections import as_gallery_errors, log_of
from finegrain.gallery.sqlite.files import (
    codes_of,
    next_vectors_of,
    publish_new,
    publish_over,
    unfinished_file,
    vectors_of,
)
from finegrain.gallery.sqlite.store import Store
from finegrain.gallery.sqlite.vector_upkeep import VectorUpkeep
from finegrain.gallery.sqlite.vectors import StoredVectors

_SHOWN = 3


def back_up(store: Store, target: Path, *, overwrite: bool) -> int:
    """Copy a snapshot of all pictures to a new file; return their number.

    Other threads and processes may search and write meanwhile. The copy is compact and holds no
    deleted bytes. It is checked before it appears under its name, and only its owner may read it.

    Raises:
        GalleryError: The target exists and ``overwrite`` is False, or is in use; or the copy
            cannot be written, or fails its checks.
    """
    _check_target(store.path, target, overwrite=overwrite)
    with as_gallery_errors(target), unfinished_file(target.resolve()) as unfinished:
        try:
            store.copy_to(unfinished)
            count = _checked_count(store, unfinished)
            _publish(unfinished, target.resolve(), overwrite=overwrite)
        finally:
            vectors_of(unfinished).unlink(missing_ok=True)
    return count


def _publish(unfinished: Path, target: Path, *, overwrite: bool) -> None:
    """Give both files of a copy their names; the vectors first, under that of a new file.

    An opening completes this, if it is interrupted between the two.
    """
    has_vectors = vectors_of(unfinished).exists()
    if has_vectors:
        publish_over(vectors_of(unfinished), next_vectors_of(target))
    if overwrite:
        publish_over(unfinished, target)
        for old in (tokens_of(target), codes_of(target)):  # of the old pictures
            old.unlink(missing_ok=True)
    elif not publish_new(unfinished, target):
        next_vectors_of(target).unlink(missing_ok=True)
        raise _exists(target)
    if has_vectors:
        publish_over(next_vectors_of(target), vectors_of(target))
    else:
        vectors_of(target).unlink(missing_ok=True)


def tokens_of(path: Path) -> Path:
    """Path of the file with the tokens of a gallery's pictures."""
    return path.with_name(f"{path.name}.tokens")


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise GalleryError(f"The folder {target.parent} does not exist. Make it first.")
    if target.resolve() == source.resolve():
        raise GalleryError(f"{target} is the gallery itself. Choose another path for its copy.")
    if target.exists() and not target.is_file():
        raise GalleryError(f"{target} is not a file. Choose another path.")
    if target.exists() and not overwrite:
        raise _exists(target)
    if vectors_of(target).exists() and not target.exists():
        raise _exists(vectors_of(target))
    if log_of(target.resolve()).exists():
        raise GalleryError(
            f"{target} is in use, or a process that used it was killed: there is "
            f"{log_of(target).name}. Stop the processes that use it, open it once, and try again."
        )


def _exists(target: Path) -> GalleryError:
    return GalleryError(
        f"{target} exists already. Choose another path, or pass overwrite=True (--overwrite)."
    )


def _checked_count(store: Store, copy: Path) -> int:
    with closing(sqlite3.connect(copy)) as connection:
        faults = [text for (text,) in connection.execute("PRAGMA integrity_check(3)")]
        if faults != ["ok"]:
            raise GalleryError(
                f"{store.path} is damaged: {'; '.join(faults)}. Nothing was copied; restore an "
                "older backup, or index the pictures again."
            )
        identity = connection.execute("SELECT fingerprint, dim FROM gallery").fetchone()
        if identity != (store.fingerprint, store.dim):
            raise GalleryError(
                f"{store.path} was reindexed meanwhile. Open it again with its plan."
            )
        (count,) = connection.execute("SELECT count(*) FROM picture").fetchone()
        connection.execute("PRAGMA journal_mode = DELETE")
        vectors = StoredVectors(copy, read_only=True, on_damage=lambda _: None)
        damaged = list(
            islice(VectorUpkeep(vectors).faults(connection.execute), _SHOWN)
        )  # reads all vectors
        vectors.close()
    if damaged:  # a copy of it must not replace an older one that is intact
        advice = " ".join(dict.fromkeys(fault.remedy.value for fault in damaged))
        raise GalleryError(
            f"{store.path} is damaged: {'; '.join(fault.text for fault in damaged)}. Nothing was "
            f"copied; finegrain gallery check names all damage. {advice}"
        )
    return int(count)
