"""Deleting, copying and checking a gallery."""

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
        """Delete pictures and erase their bytes from the file and from the files next to it.

        Erasing reads the whole file once, so delete many pictures in one call. Searches continue
        meanwhile. If another process still reads an older snapshot, a :class:`GalleryWarning` is
        issued, and the bytes are erased once it has finished.

        Returns:
            Number of pictures deleted.
        """
        return self._store.delete(checked_ids(ids))

    def delete_where(self, where: str) -> int:
        """Delete the pictures that match a filter; see :meth:`delete`.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return self._store.delete(self._store.ids_where(where).tolist())

    def expire(self, *, trust_clock: bool = False) -> int:
        """Delete the expired pictures; see :meth:`delete`.

        A clock that is more than two days ahead of the last use of the gallery may be wrong. It
        is trusted only if it is still ahead an hour or more later. Until then, a
        :class:`GalleryWarning` is issued, and pictures that have expired by this clock are in no
        result but stay in the file. A gallery that is used regularly, such as once a week, learns
        that interval, and is in doubt at most the first time.

        Args:
            trust_clock: Trust the clock at once.

        Returns:
            Number of pictures deleted.
        """
        return self._store.expire(trust_clock=trust_clock)

    def backup(self, target: str | Path, *, overwrite: bool = False) -> int:
        """Copy a snapshot of the gallery to another file; return the number of pictures.

        The gallery may be in use meanwhile. The copy is compact, checked, and readable by its
        owner only. To restore it, open the copy and back it up to the path of the gallery.

        Args:
            target: A new path.
            overwrite: Replace an existing file.

        Raises:
            GalleryError: The file exists already, the copy cannot be written or fails its checks,
                or the gallery is on Milvus.
        """
        return back_up(self._file("backed up"), Path(target), overwrite=overwrite)

    def check(self) -> GalleryReport:
        """Read the whole file and report damage.

        This runs SQLite's integrity check, and checks all vectors, metadata, ids and tokens.

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
