"""What an operator does with a gallery: copy, check, compact and measure it, or encode it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finegrain.errors import GalleryError
from finegrain.gallery.backend import Backend
from finegrain.gallery.exchange import export
from finegrain.gallery.picture_files import UnpackedFolder, unpacked_folders
from finegrain.gallery.sqlite.backup import back_up
from finegrain.gallery.sqlite.check import GalleryReport, check
from finegrain.gallery.sqlite.followed_store import FollowedStore
from finegrain.gallery.sqlite.reindex import PictureEncoder, Reindexed
from finegrain.gallery.sqlite.stats import GalleryStats


class GalleryUpkeep:
    """The part of :class:`~finegrain.gallery.Gallery` that keeps its files."""

    _store: Backend

    def reindex(
        self,
        encoder: PictureEncoder,
        fingerprint: str,
        *,
        drop_unreadable: bool = False,
        progress: bool = True,
        before_switch: Callable[[], None] | None = None,
    ) -> Reindexed:
        """Encode all pictures again, with another plan.

        Each batch is durable once it is encoded; after an interruption, the same call continues
        where it stopped. Searches use the old vectors until all pictures are encoded. Then the
        gallery switches to the new vectors in one step, and other processes that have it open
        get an error that asks them to open it again. Pictures are read from their paths, or
        from their thumbnails.

        Args:
            encoder: Encoder of the new plan.
            fingerprint: Identity of the new plan.
            drop_unreadable: Delete pictures that can no longer be read. By default, the gallery
                keeps its old vectors if there are such pictures.
            progress: Show a progress bar.
            before_switch: Called before each attempt to switch a gallery in a file.

        Raises:
            GalleryError: The file cannot be written, or a reindexing with a third plan began.
        """
        self._require_one_vector("reindex")
        if before_switch is not None:
            return self._file("reindexed beside searches").reindex(
                encoder,
                fingerprint,
                drop_unreadable=drop_unreadable,
                progress=progress,
                before_switch=before_switch,
            )
        return self._store.reindex(
            encoder, fingerprint, drop_unreadable=drop_unreadable, progress=progress
        )

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

    def compact(self) -> None:
        """Write the vectors to a new file without the places of deleted pictures.

        Opening a gallery does this by itself once deleted pictures take more places than others,
        and more than 16,384. Searches continue meanwhile; writers wait.

        Raises:
            GalleryError: The file cannot be written, or the gallery is on Milvus.
        """
        self._file("compacted").compact()

    def stats(self) -> GalleryStats:
        """Numbers of pictures, bytes in memory and on disk, and what waits to be compacted.

        Memory is counted as it is now: before the first search, there is none. The bytes of an
        approximate index are counted by writing it to nowhere, which takes seconds for millions of
        pictures.

        Raises:
            GalleryError: The file cannot be read, or the gallery is on Milvus.
        """
        return self._file("measured").stats()

    def check(self) -> GalleryReport:
        """Read the files and report damage.

        This runs SQLite's integrity check, and checks all vectors, codes, metadata, ids and tokens.

        Raises:
            GalleryError: The file is too damaged to be read, or the gallery is on Milvus.
        """
        return check(self._file("checked"))

    def export(self, target: str | Path) -> int:
        """Write all pictures to files that other tools read; return their number.

        Args:
            target: A new path. If it ends in ``.parquet``, one Parquet file is written; otherwise
                a folder of NumPy arrays and JSON lines in the layout of clip-retrieval. See
                :mod:`finegrain.gallery.exchange`.

        Raises:
            GalleryError: The path exists already, or cannot be written.
            MissingExtraError: The path ends in ``.parquet`` and pyarrow is not installed.
        """
        return export(self._store, Path(target))

    def has_numbered_pids(self) -> bool:
        """Whether an older version may have replaced some pids with numbers of its own.

        That version numbered the products of each catalogue 0, 1, 2 and dropped their keys. Such
        numbers cannot be distinguished from numeric pids of persons, which it kept.
        """
        return self._store.has_numbered_pids()

    def unpacked(self) -> list[UnpackedFolder]:
        """The folders of pictures that were unpacked from archives and tables.

        The unpacked file of a picture is deleted together with the picture.
        """
        return unpacked_folders(place.image for place in self._store.places())

    def _require_one_vector(self, what: str) -> None:
        if (count := self._store.vectors_per_row) > 1:
            raise GalleryError(
                f"{self._store.path} holds {count} vectors a picture; {what} needs one."
            )

    def _file(self, what: str) -> FollowedStore:
        if not isinstance(self._store, FollowedStore):
            raise GalleryError(
                f"{self._store.path} is on Milvus, and can only be {what} by its server."
            )
        return self._store
