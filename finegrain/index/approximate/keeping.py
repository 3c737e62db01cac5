"""Keeping the codes of an approximate index next to a gallery, and opening them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from finegrain.errors import GalleryError
from finegrain.index.approximate.code_erasure import draft
from finegrain.index.approximate.code_file import (
    BATCH_ROWS,
    Batch,
    Checksums,
    CodeFile,
    CodesInvalidError,
    Mask,
)
from finegrain.index.approximate.kinds import Approximate
from finegrain.index.approximate.structures import CodedRows
from finegrain.index.approximate.trained import Trained
from finegrain.index.backend import Truth
from finegrain.index.estimate import Ids

_MOST_UNREAD = 1024  # so many rows without a code are looked up, to see whether they are damaged


@runtime_checkable
class CodeKeeper(Truth, Protocol):
    """A source of vectors with a place for a file of codes next to it."""

    @property
    def codes_path(self) -> Path:
        """Path of the file."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether the file may only be read."""
        ...

    def vector_checksums(self) -> tuple[Ids, Checksums]:
        """Ids of present vectors, ascending, and their CRC-32."""
        ...

    def publishing(self) -> AbstractContextManager[object]:
        """Excludes deletions, and others that write the file, from it.

        Raises:
            GalleryError: Another process writes for a long time, or the gallery is read-only.
        """
        ...


class Kept(NamedTuple):
    """How much of an index is in the file.

    Attributes:
        token: Random number of the file.
        end: End of its last batch.
        num_rows: Number of rows in its batches.
    """

    token: bytes
    end: int
    num_rows: int


class _Present:
    """The vectors that a gallery holds now."""

    def __init__(self, keeper: CodeKeeper) -> None:
        self.ids, self.checksums = keeper.vector_checksums()

    def checksums_of(self, ids: Ids) -> tuple[Checksums, Mask]:
        """CRC-32 of the vectors with some ids, and which of them are present."""
        if not len(self.ids):
            return np.zeros(len(ids), np.uint32), np.zeros(len(ids), np.bool_)
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return self.checksums[places], self.ids[places] == ids


def opened(keeper: CodeKeeper, kind: Approximate) -> tuple[Trained, Kept] | None:
    """Open the index that is kept next to a gallery.

    Returns:
        The index; None if none is kept, or another kind, or most of its rows are deleted.

    Raises:
        CodesInvalidError: The file is damaged, or is not of this gallery and moment.
        OSError: It cannot be read.
    """
    try:
        file = CodeFile(keeper.codes_path, writable=False)
    except FileNotFoundError:
        return None
    with file:
        if file.header.settings != kind.settings(keeper.dim):
            return None
        rows = _Reading(file, kind)
        index = kind.structure.restored(keeper.dim, file.learned(), rows)
    present = _Present(keeper)
    ids, checksums, alive = rows.read()
    own, is_present = present.checksums_of(ids)
    current = alive & is_present & (own == checksums)
    stale = ids[alive & ~current]
    trained = Trained(index, ids, current, rows_then=file.header.rows_then)
    kept = Kept(file.header.token, rows.end, len(ids))
    if len(stale) and not keeper.read_only:
        with suppress(GalleryError, OSError):  # the next opening tries again
            _erase_stale(keeper, kept, stale)
    if 2 * trained.num_alive < max(len(ids), len(present.ids)):
        return None
    _check_complete(keeper, present, trained)
    return trained, kept


class _Reading:
    """The batches of a file, as rows of an index whose ids and checksums are collected."""

    def __init__(self, file: CodeFile, kind: Approximate) -> None:
        self._file = file
        self._kind = kind
        self._ids: list[Ids] = []
        self._checksums: list[Checksums] = []
        self.end = file.first

    def __iter__(self) -> Iterator[CodedRows]:
        num_rows = 0
        for batch, end in self._file.batches():
            order = np.argsort(np.abs(batch.ids), kind="stable")
            places = np.empty(len(order), np.int64)
            places[order] = np.arange(num_rows, num_rows + len(order))
            batch.codes[batch.ids < 0] = self._kind.structure.deleted_code
            self._ids.append(batch.ids[order])
            self._checksums.append(batch.checksums[order])
            self.end = end
            num_rows += len(order)
            yield CodedRows(places, batch.codes, batch.arrangement)
        if not num_rows:
            raise CodesInvalidError(f"{self._file.path.name} holds no intact rows")

    def read(self) -> tuple[Ids, Checksums, Mask]:
        """Ids, ascending, the CRC-32 of their vectors, and whether they are not deleted."""
        ids = np.concatenate(self._ids)
        return np.abs(ids), np.concatenate(self._checksums), ids > 0


def _erase_stale(keeper: CodeKeeper, kept: Kept, ids: Ids) -> None:
    with keeper.publishing(), CodeFile(keeper.codes_path, writable=True) as file:
        if file.header.token == kept.token:
            file.erase(ids)


def _check_complete(keeper: CodeKeeper, present: _Present, trained: Trained) -> None:
    """Check that all rows up to the last have a code, except those whose vector is damaged."""
    expected = present.ids[present.ids <= trained.ids[-1]]
    if len(expected) == trained.num_alive:
        return
    lacking = np.setdiff1d(expected, trained.live_ids, assume_unique=True)
    if len(lacking) > _MOST_UNREAD or keeper.vectors(lacking.tolist()):
        raise CodesInvalidError(
            f"{keeper.codes_path.name} is of another gallery or moment: {len(lacking)} of "
            f"{len(present.ids)} vectors have no code"
        )


def keep(keeper: CodeKeeper, kind: Approximate, trained: Trained, before: Kept | None) -> Kept:
    """Write an index to the file; only its new rows, if the structure allows it.

    Args:
        keeper: The gallery.
        kind: Kind of the index.
        trained: The index.
        before: What the file holds of it.

    Raises:
        GalleryError: Another process writes for a long time.
        OSError: The file cannot be written.
    """
    if before is not None and kind.structure.is_appended_to:
        with (
            suppress(FileNotFoundError, CodesInvalidError),
            keeper.publishing(),
            CodeFile(keeper.codes_path, writable=True) as file,
        ):
            if file.header.token == before.token and file.ends_at(before.end):
                return _appended(file, keeper, kind, trained, before)
    return _replaced(keeper, kind, trained)


def _appended(
    file: CodeFile, keeper: CodeKeeper, kind: Approximate, trained: Trained, before: Kept
) -> Kept:
    present, end = _Present(keeper), before.end
    for start in range(before.num_rows, len(trained.ids), BATCH_ROWS):
        end = file.append(end, _batch(present, kind, trained, start))
    file.sync()
    return Kept(before.token, end, len(trained.ids))


def _replaced(keeper: CodeKeeper, kind: Approximate, trained: Trained) -> Kept:
    """Write a new file, which gets its name when it is complete."""
    path, width = keeper.codes_path, kind.structure.code_bytes(keeper.dim)
    learned = kind.structure.learned(trained.index)
    before = _Present(keeper)
    with (
        draft(path) as unfinished,
        CodeFile.create(
            unfinished, kind.settings(keeper.dim), trained.rows_then, learned, width
        ) as file,
    ):
        end = file.first
        for start in range(0, len(trained.ids), BATCH_ROWS):
            end = file.append(end, _batch(before, kind, trained, start))
        file.sync()
        with keeper.publishing():
            gone = np.setdiff1d(trained.ids, _Present(keeper).ids, assume_unique=True)
            file.erase(gone)  # deleted while the file was written
            if not file.is_at(unfinished):
                raise GalleryError(f"another process writes {unfinished.name}")
            os.replace(unfinished, path)
            _sync_folder(path.parent)
        return Kept(file.header.token, end, len(trained.ids))


def _batch(present: _Present, kind: Approximate, trained: Trained, start: int) -> Batch:
    stop = min(start + BATCH_ROWS, len(trained.ids))
    places, codes, arrangement = kind.structure.rows(trained.index, start, stop)
    ids = trained.ids[places]
    checksums, is_present = present.checksums_of(ids)
    dead = ~(is_present & trained.alive[places])
    return Batch(
        np.where(dead, -ids, ids),
        np.where(dead, np.uint32(0), checksums),
        np.where(dead[:, None], np.uint8(0), codes),
        arrangement,
    )


def discard(keeper: CodeKeeper) -> None:
    """Remove the file of an index that is not used any more.

    Raises:
        GalleryError: Another process writes for a long time.
        OSError: The file cannot be removed.
    """
    if keeper.codes_path.exists():
        with keeper.publishing():
            keeper.codes_path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not on Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
