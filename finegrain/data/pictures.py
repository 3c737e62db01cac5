"""Finding the pictures that a dataset's table names."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from finegrain.errors import DataError


class PictureFolder:
    """Finds pictures by the relative paths of a table, below one of several folders.

    Each folder is listed once and remembered: forty thousand look-ups on a network disk
    take minutes otherwise.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = roots
        self._names: dict[Path, frozenset[str]] = {}

    def find(self, relative: str) -> Path:
        """Return the path of a picture.

        Raises:
            DataError: ``relative`` is absolute, climbs out, or no such picture exists.
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
            path = root / inside
            if path.name in self._list(path.parent):
                return path
        looked_in = " or ".join(str(root) for root in self._roots)
        raise DataError(f"picture {relative!r} not found under {looked_in}")

    def _list(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                with os.scandir(folder) as entries:
                    names = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):  # no folder can have this name: nothing is in it
                names = frozenset()
            self._names[folder] = names
        return self._names[folder]
