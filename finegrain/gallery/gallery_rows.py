"""What is known of the pictures of a gallery: reading it, and changing it without encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from finegrain.gallery.backend import Backend
from finegrain.gallery.changes import move, update
from finegrain.gallery.entries import Entry, checked_ids
from finegrain.gallery.filters.advice import filter_notes
from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.gallery.row import Place, Row
from finegrain.records import Scalar

_CHUNK_PATHS = 1024


class GalleryRows:
    """The part of a :class:`~finegrain.gallery.Gallery` that deals with rows."""

    _store: Backend

    def rows(self, ids: Iterable[int]) -> list[Row]:
        """Rows in the order of the ids; ids that are not (or no longer) there are left out."""
        wanted = checked_ids(ids)
        found = self._store.rows(wanted)
        return [found[id_] for id_ in wanted if id_ in found]

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG files of those of the pictures that were added with one, by id."""
        return self._store.thumbnails(checked_ids(ids))

    def thumbnail(self, id_: int) -> bytes | None:
        """JPEG file of a picture that was added with one, else None."""
        return self._store.thumbnails(checked_ids([id_])).get(id_)

    def images(self) -> set[str]:
        """Paths of all pictures that have one."""
        return self._store.images()

    def known(self, images: Iterable[str]) -> set[str]:
        """Those of the paths that there are pictures of; a large gallery is not read for it."""
        return {image for image in self._store.known(images) if image is not None}

    def columns(self) -> dict[str, str]:
        """Name and kind of each column a filter may use, such as ``"text"``.

        A column that has held several kinds states them all: ``"number or text"``.
        """
        seen = self._store.columns()
        kinds = {name: " or ".join(sorted(kinds)) or "null" for name, kinds in seen.items()}
        return {**BUILT_IN, "pid": "number or text", **kinds}

    def update(self, pictures: str | Iterable[int], columns: Mapping[str, Scalar]) -> int:
        """Set columns of pictures without encoding them again.

        Args:
            pictures: Ids, or a filter such as ``"camera = 'gate-3'"``.
            columns: New values by name; other columns stay. None takes a value away. ``pid``,
                ``camera``, ``time`` and ``track`` are the gallery's own columns.

        Returns:
            How many pictures there were.

        Raises:
            FilterError: The filter does not parse or does not fit its columns.
            GalleryError: A value does not fit, or the column is none that can be set.
        """
        ids = self._store.ids_where(pictures) if isinstance(pictures, str) else pictures
        return update(self._store, checked_ids(ids), columns)

    def move(self, old: str | Path, new: str | Path) -> int:
        """Note that a folder or file of pictures has moved; nothing is encoded again.

        Returns:
            How many pictures moved with it.

        Raises:
            GalleryError: No picture is under the old path, or none of them under the new one.
        """
        return move(self._store, Path(old), Path(new))

    def has_numbered_pids(self) -> bool:
        """Whether there are pids that an older version may have numbered itself.

        It numbered the products of each catalogue 0, 1, 2 instead of keeping their keys. Pids of
        persons, which it kept, cannot be told from these.
        """
        return self._store.has_numbered_pids()

    def rewrite(self, entries: Mapping[int, Entry]) -> None:
        """Put entries, which were checked already, in the place of what rows say."""
        if entries:
            self._store.rewrite(entries)

    def places(self) -> Iterable[Place]:
        """Path, source, size and digest of each picture that has a path, by ascending id."""
        return self._store.places()

    def rows_of(self, images: Iterable[str]) -> Iterator[tuple[str, list[Row]]]:
        """Each path with the rows of its pictures, none where there is no picture of it."""
        paths = list(images)
        for start in range(0, len(paths), _CHUNK_PATHS):
            some = paths[start : start + _CHUNK_PATHS]
            known = self._store.known(some)
            rows = self._store.rows(id_ for ids in known.values() for id_ in ids)
            for path in some:
                yield path, [rows[id_] for id_ in known.get(path, ()) if id_ in rows]

    def notes_on(self, where: str) -> list[str]:
        """What to know of a filter that finds little: columns and texts that no picture has.

        So ``baseColour = 'black'`` is told that there is ``'Black'``.

        Raises:
            FilterError: The filter does not parse or does not fit its columns.
        """
        return filter_notes(self._store, where)
