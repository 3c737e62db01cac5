"""Finds the pictures that a dataset's table names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from finegrain.errors import DataError


class MissingPictureError(DataError):
    """A table names a picture that does not exist."""


class UnreadablePictureError(DataError):
    """A table names or contains a picture that cannot be decoded."""


class PictureFolder:
    """Finds pictures by the relative paths of a table, below one of several folders.

    Each folder is listed once and cached, because forty thousand look-ups on a network disk take
    minutes. Names are compared in the same Unicode form: macOS writes ``é`` as two characters,
    and most tables as one.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = roots
        self._entries: dict[Path, Mapping[str, _Entry]] = {}
        self._files: dict[Path, Mapping[str, str]] = {}

    def find(self, relative: str) -> Path:
        """Return the path of a picture.

        Raises:
            MissingPictureError: No such picture exists.
            DataError: ``relative`` is absolute or leads out of the folder.
        """
        inside = PurePosixPath(relative)
        # Drive letters and backslashes would lead out of the folder on Windows, so they are
        # rejected on all systems.
        leads_out = inside.is_absolute() or ".." in inside.parts or "\0" in relative
        if leads_out or PureWindowsPath(relative).drive or "\\" in relative:
            raise DataError(
                f"expected a path relative to {self._roots[0]} with forward slashes, "
                f"got {relative!r}"
            )
        for root in self._roots:
            folder = self._folder(root, inside.parent)
            entry = None if folder is None else self._entry(folder, inside.name)
            if folder is not None and entry is not None and entry.is_file:
                return folder / entry.name
        looked_in = " or ".join(str(root) for root in self._roots)
        raise MissingPictureError(
            f"picture {relative!r} not found under {looked_in}{self._other_case(inside)}"
        )

    def _folder(self, root: Path, inside: PurePosixPath) -> Path | None:
        """A folder below a root, by the names of folders on disk."""
        path = root
        for part in inside.parts:
            entry = self._entry(path, part)
            if entry is None:
                return None
            path = path / entry.name
        return path

    def _entry(self, folder: Path, name: str) -> _Entry | None:
        entries = self._list(folder)
        return entries.get(name) or entries.get(unicodedata.normalize("NFC", name))

    def _other_case(self, inside: PurePosixPath) -> str:
        """The part of a message that names a file which differs only by case, or an empty text."""
        for root in self._roots:
            folder = self._folder(root, inside.parent)
            other = None if folder is None else self._folded(folder).get(inside.name.casefold())
            if other is not None:
                return f"; there is {other!r}, which a table has to name in the same case"
        return ""

    def _folded(self, folder: Path) -> Mapping[str, str]:
        """The files of a folder without case; a table may name thousands that do not exist."""
        if folder not in self._files:
            files = [entry.name for entry in self._list(folder).values() if entry.is_file]
            self._files[folder] = {name.casefold(): name for name in reversed(files)}
        return self._files[folder]

    def _list(self, folder: Path) -> Mapping[str, _Entry]:
        """The entries of a folder, by their names and by the composed Unicode forms of these."""
        if folder not in self._entries:
            try:
                with os.scandir(folder) as listed:
                    entries = [_Entry(entry.name, entry.is_file()) for entry in listed]
            except (OSError, ValueError):  # no folder can have this name, so it has no entries
                entries = []
            composed = {unicodedata.normalize("NFC", entry.name): entry for entry in entries}
            self._entries[folder] = composed | {entry.name: entry for entry in entries}
        return self._entries[folder]


class _Entry(NamedTuple):
    """A name in a folder."""

    name: str
    is_file: bool
