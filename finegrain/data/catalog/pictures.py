"""What the picture cell of a catalogue may hold: a path, a URL, or the picture itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from finegrain.data.pictures import PictureFolder
from finegrain.errors import DataError
from finegrain.preprocess.image import FORMATS, MAX_FILE_BYTES, MAX_PIXELS

FindPicture = Callable[[Any], Path]
"""The path of the picture that a cell holds or names, or a DataError that says why not."""

_ENDINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
"""By the first bytes of a file."""


class CatalogPictures:
    """Finds the pictures of one catalogue.

    Pictures inside the catalogue are unpacked once into a folder beside it, named by what
    they hold: reading it again writes nothing, and no name in it leads anywhere.
    """

    def __init__(self, catalog: Path, *, images_root: Path | None = None) -> None:
        self._folder = PictureFolder(images_root or catalog.parent)
        self._has_downloads = images_root is not None
        self._unpacked = catalog.with_name(catalog.name + ".pictures")
        self._urls: dict[Path, str] = {}

    def find(self, cell: Any) -> Path:
        """The path of the picture that a cell names or holds.

        Args:
            cell: A path below the folder; a URL, whose file name is looked for in
                ``images_root``; bytes of a picture file; or ``{"bytes": ..., "path": ...}``.

        Raises:
            DataError: There is no such picture.
        """
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return self._unpack(cell)
        if not isinstance(cell, str) or not cell.strip():
            raise DataError(f"expected the path of a picture, got {cell!r:.60}")
        name = cell.strip()
        return self._downloaded(name) if "://" in name else self._folder.find(name)

    def find_readable(self, cell: Any) -> Path:
        """The same, where the picture's header says that it can be decoded."""
        path = self.find(cell)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"picture {path.name!r} is larger than {MAX_FILE_BYTES >> 20} MiB")
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"picture {path.name!r} cannot be read: {error}") from error
        if width * height > MAX_PIXELS:
            raise DataError(
                f"picture {path.name!r} is too large ({width} x {height}); up to "
                f"{MAX_PIXELS:,} pixels are decoded. Make it smaller first"
            )
        return path

    def _downloaded(self, url: str) -> Path:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise DataError(f"{url!r:.80} is no URL: {error}") from error
        name = PurePosixPath(unquote(parts.path)).name
        if not self._has_downloads:
            raise DataError(
                f"{url!r:.80} is a URL, and none is fetched. Download the pictures into a folder "
                "under their file names, and give it by images_root"
            )
        path = self._folder.find(name)
        # Where only the query differs, it is a version of the same picture.
        address = f"{parts.netloc}{parts.path}"
        if self._urls.setdefault(path, address) != address:
            raise DataError(
                f"{name!r} is the file name of {address!r:.80} and of {self._urls[path]!r:.80}. "
                "Download them under different names and name those in the catalogue"
            )
        return path

    def _unpack(self, data: bytes) -> Path:
        if len(data) > MAX_FILE_BYTES:
            raise DataError(f"its picture is larger than {MAX_FILE_BYTES >> 20} MiB")
        ending = next((end for magic, end in _ENDINGS.items() if data.startswith(magic)), None)
        if ending is None:
            raise DataError(f"its picture is of no known format (starts with {data[:8]!r})")
        path = self._unpacked / (hashlib.sha256(data).hexdigest()[:32] + ending)
        if not path.exists():
            partial = path.with_name(path.name + ".partial")
            try:
                self._unpacked.mkdir(exist_ok=True)
                partial.write_bytes(data)
                partial.replace(path)
            except OSError as error:
                raise DataError(
                    f"its picture cannot be unpacked into {self._unpacked}: {error}. "
                    "Move the catalogue to where that can be written"
                ) from error
        return path
