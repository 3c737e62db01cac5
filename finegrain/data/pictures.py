"""Finding the pictures that a dataset's table names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from finegrain.errors import DataError


class MissingPictureError(DataError):
    """A table names a picture that is not there."""


class UnreadablePictureError(DataError):
    """A table names or holds a picture that cannot be decoded."""


class PictureFolder:
    """Finds pictures by the relative paths of a table, below one of several folders.

    Each folder is listed once and remembered: forty thousand look-ups on a network disk
    take minutes otherwise. A name matches in whatever Unicode form either side has it, as
    macOS writes ``é`` as two characters where most tables have one.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = roots
        self._names: dict[Path, Mapping[str, str]] = {}

    def find(self, relative: str) -> Path:
        """Return the path of a picture.

        Raises:
            MissingPictureError: No such picture exists.
            DataError: ``relative`` is absolute or climbs out.
        """
        inside = PurePosixPath(relative)
        # A table written elsewhere may hold drive letters or backslashes; on Windows
        # they would lead out of the folder, so they are refused everywhere.
        leads_out = inside.is_absolute() or ".." in inside.parts or "\0" in relative
        if leads_out or PureWindowsPath(relative).drive or "\\" in relative:
            raise DataError(
                f"expected a path relative to {self._roots[0]} with forward slashes, "
                f"got {relative!r}"
            )
        for root in self._roots:
            path = self._below(root, inside)
            if path is not None and path.is_file():
                return path
        looked_in = " or ".join(str(root) for root in self._roots)
        raise MissingPictureError(
            f"picture {relative!r} not found under {looked_in}{self._other_case(inside)}"
        )

    def _below(self, root: Path, inside: PurePosixPath) -> Path | None:
        path = root
        for part in inside.parts:
            names = self._list(path)
            name = names.get(part) or names.get(unicodedata.normalize("NFC", part))
            if name is None:
                return None
            path = path / name
        return path if inside.parts else None

    def _other_case(self, inside: PurePosixPath) -> str:
        """Names the file that differs by upper and lower case only, if there is one."""
        wanted = inside.name.casefold()
        for root in self._roots:
            folder = self._below(root, inside.parent) if inside.parent.parts else root
            for name in self._list(folder).values() if folder is not None else ():
                if name.casefold() == wanted:
                    return f"; there is {name!r}, which a table has to name in the same case"
        return ""

    def _list(self, folder: Path) -> Mapping[str, str]:
        """The names in a folder, by themselves and by their composed Unicode form."""
        if folder not in self._names:
            try:
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in entries]
            except (OSError, ValueError):  # no folder can have this name: nothing is in it
                names = []
            composed = {unicodedata.normalize("NFC", name): name for name in names}
            self._names[folder] = composed | {name: name for name in names}
        return self._names[folder]
