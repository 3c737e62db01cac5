"""What keeps a gallery safe, and free of what was deleted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finegrain.errors import GalleryError
from finegrain.gallery.backend import Backend
from finegrain.gallery.entries import checked_ids
from finegrain.gallery.sqlite.backup import back_up
from finegrain.gallery.sqlite.check import GalleryReport, check
from finegrain.gallery.sqlite.store import Store


class Upkeep:
    """The methods of a gallery that delete, copy and check."""

    _store: Backend

    def delete(self, ids: Iterable[int]) -> int:
        """Delete pictures for good: their bytes are gone from the file and from what is beside it.

        For that the file is read once and its unused bytes are overwritten, so delete many at
        once rather than one by one. Searches go on meanwhile. A :class:`GalleryWarning` says so
        where another process still reads what it began to read before; the rest is then erased
        as soon as it has finished.

        Returns:
            How many of the ids were there.
        """
        return self._store.delete(checked_ids(ids))

    def delete_where(self, where: str) -> int:
        """Delete the pictures that match a filter; see :meth:`delete`.

        Raises:
            FilterError: The filter does not parse or does not fit its columns.
        """
        return self._store.delete(self._store.ids_where(where).tolist())

    def expire(self, *, trust_clock: bool = False) -> int:
        """Delete the pictures whose time is over for good; see :meth:`delete`.

        A clock that is more than two days ahead of the last use of the gallery may be wrong. It
        is trusted only when it still says so an hour or more later; a :class:`GalleryWarning`
        says so, and what has expired by it is in no answer meanwhile.

        Args:
            trust_clock: The clock is right; do not wait for a second look.

        Returns:
            How many were deleted.
        """
        return self._store.expire(trust_clock=trust_clock)

    def backup(self, target: str | Path, *, overwrite: bool = False) -> int:
        """Copy the gallery to another file, as it is at one moment; returns how many pictures.

        It may be in use meanwhile. The copy is compact, checked, and readable by its owner only.
        To restore it, open the copy and back it up to the place of the gallery.

        Args:
            target: A new path.
            overwrite: Replace a file that is there.

        Raises:
            GalleryError: There is a file already, the copy cannot be written or is not sound, or
                the gallery is on Milvus.
        """
        return back_up(self._file("backed up"), Path(target), overwrite=overwrite)

    def check(self) -> GalleryReport:
        """Read the whole file, and say whether it is sound.

        Runs the database's own checks, and looks at every vector, metadata, ids and tokens.

        Raises:
            GalleryError: The file is too damaged to be read, or the gallery is on Milvus.
        """
        return check(self._file("checked"))

    def _file(self, what: str) -> Store:
        if not isinstance(self._store, Store):
            raise GalleryError(
                f"{self._store.path} is on Milvus, and can only be {what} by its server."
            )
        return self._store
