"""Reading the rows of a gallery, and changing them without encoding pictures again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from finegrain.gallery.backend import Backend
from finegrain.gallery.changes import move, update
from finegrain.gallery.entries import checked_ids
from finegrain.gallery.filters.advice import filter_notes
from finegrain.gallery.filters.conditions import BUILT_IN
from finegrain.gallery.row import Place, Row
from finegrain.gallery.unpacked import UnpackedFolder, unpacked_folders
from finegrain.records import Scalar

_CHUNK_PATHS = 1024


class GalleryRows:
    """The methods of a :class:`~finegrain.gallery.Gallery` that read and change rows."""

    _store: Backend

    def rows(self, ids: Iterable[int]) -> list[Row]:
        """Rows in the order of the ids; ids that are not stored, or no longer, are left out."""
        ordered = checked_ids(ids)
        rows = self._store.rows(ordered)
        return [rows[id_] for id_ in ordered if id_ in rows]

    def ids_where(self, where: str) -> list[int]:
        """Ids of the pictures that match a filter, ascending.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return list(self._store.ids_where(where).tolist())

    def damaged(self) -> frozenset[int]:
        """Ids of the pictures whose damage was detected since the gallery was opened.

        They are left out of all answers. :meth:`check` examines the whole file.
        """
        return self._store.damaged

    def thumbnails(self, ids: Iterable[int]) -> dict[int, bytes]:
        """JPEG thumbnails by id; pictures that were added without one are left out."""
        return self._store.thumbnails(checked_ids(ids))

    def thumbnail(self, id_: int) -> bytes | None:
        """JPEG thumbnail of a picture, or None if it was added without one."""
        return self._store.thumbnails(checked_ids([id_])).get(id_)

    def images(self) -> set[str]:
        """Paths of all pictures that have one."""
        return self._store.images()

    def known(self, images: Iterable[str]) -> set[str]:
        """The paths that have pictures in the gallery. It is not read as a whole."""
        return {image for image in self._store.known(images) if image is not None}

    def columns(self) -> dict[str, str]:
        """Kind of each column that a filter may use, such as ``"text"``, by name.

        A column that has held values of several kinds states all: ``"number or text"``.
        """
        seen = self._store.columns()
        kinds = {name: " or ".join(sorted(kinds)) or "null" for name, kinds in seen.items()}
        return {**BUILT_IN, "pid": "number or text", **kinds}

    def update(self, pictures: str | Iterable[int], columns: Mapping[str, Scalar]) -> int:
        """Set columns of pictures without encoding them again.

        Args:
            pictures: Ids, or a filter such as ``"camera = 'gate-3'"``.
            columns: New values by name; other columns stay. None removes a value. ``pid``,
                ``camera``, ``time`` and ``track`` are built-in columns; others are metadata.

        Returns:
            Number of pictures changed.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
            GalleryError: A value is of the wrong type, or a column cannot be set.
        """
        ids = self._store.ids_where(pictures) if isinstance(pictures, str) else pictures
        return update(self._store, checked_ids(ids), columns)

    def move(self, old: str | Path, new: str | Path) -> int:
        """Record that a folder or file of pictures has moved; nothing is encoded again.

        Returns:
            Number of pictures that moved with it.

        Raises:
            GalleryError: No picture is under the old path, or no file is at any of the new paths.
        """
        return move(self._store, Path(old), Path(new))

    def has_numbered_pids(self) -> bool:
        """Whether an older version may have replaced some pids with numbers of its own.

        That version numbered the products of each catalogue 0, 1, 2 and dropped their keys. Such
        numbers cannot be distinguished from numeric pids of persons, which it kept.
        """
        return self._store.has_numbered_pids()

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the columns of stored rows by those of these rows, which are validated."""
        if rows:
            self._store.rewrite(rows)

    def places(self) -> Iterable[Place]:
        """Path, source, size and digest of each picture that has a path, by ascending id."""
        return self._store.places()

    def unpacked(self) -> list[UnpackedFolder]:
        """The folders of pictures that were unpacked from archives and tables.

        The unpacked file of a picture is deleted together with the picture.
        """
        return unpacked_folders(place.image for place in self._store.places())

    def rows_of(self, images: Iterable[str]) -> Iterator[tuple[str, list[Row]]]:
        """Each path with the rows of its pictures; an empty list for a path without pictures."""
        paths = list(images)
        for start in range(0, len(paths), _CHUNK_PATHS):
            chunk = paths[start : start + _CHUNK_PATHS]
            known = self._store.known(chunk)
            rows = self._store.rows(id_ for ids in known.values() for id_ in ids)
            for path in chunk:
                yield path, [rows[id_] for id_ in known.get(path, ()) if id_ in rows]

    def notes_on(self, where: str) -> list[str]:
        """Notes on a filter that matches few pictures: columns and texts that no picture has.

        For example, the note on ``baseColour = 'black'`` suggests the value ``'Black'``.

        Raises:
            FilterError: The filter does not parse, or compares a column with a wrong type.
        """
        return filter_notes(self._store, where)
