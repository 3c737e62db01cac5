"""Finds the pictures that a cell of a catalogue names by path or URL, or contains."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from finegrain.data.pictures import MissingPictureError, PictureFolder, UnreadablePictureError
from finegrain.errors import DataError, ImageError, MissingExtraError
from finegrain.preprocess.formats import ending_of
from finegrain.preprocess.image import MAX_FILE_BYTES, check_header

_MARKS = ("|", ";", ",", "\n", "\t", " ")
"""Separators between several names in a cell, the most certain first."""

# Each run of separators is tried once, not from each of its characters.
_BEFORE_URL = re.compile(r"(?<![|;,\s])[|;,\s]++(?=[A-Za-z][A-Za-z0-9+.-]{1,15}://)")
_PICTURE_ENDING = re.compile(r"\.[A-Za-z0-9]{3,4}(?:[?#]|$)")
_MAX_NAMES = 1000


class CatalogPictures:
    """Finds the pictures of one catalogue.

    Pictures inside the catalogue are unpacked once into a folder beside it. They are named by a
    hash of their content, so reading again writes nothing, and names in the catalogue are not
    used as paths.

    Args:
        catalog: The file. Paths are relative to its folder.
        images_root: The folder that paths are relative to instead.
        check: Whether the header of each picture is read, to reject those that cannot be decoded.
    """

    def __init__(
        self, catalog: Path, *, images_root: Path | None = None, check: bool = True
    ) -> None:
        self._root = images_root or catalog.parent
        self._folder = PictureFolder(self._root)
        self._has_downloads = images_root is not None
        self._check = check
        self._unpacked = catalog.with_name(catalog.name + ".pictures")
        self._urls: dict[Path, str] = {}

    def find_all(self, cell: Any) -> tuple[list[Path], list[DataError]]:
        """The pictures that a cell names or contains, and the errors of the others.

        Args:
            cell: A path below the folder, also with backslashes; a URL, whose file name is
                searched in ``images_root``; bytes of a picture file; ``{"bytes": ..., "path":
                ...}``; a list of these, also as JSON; or several names between commas,
                semicolons, pipes or blanks, if no picture has the whole cell as its name.
        """
        # A name may contain commas and blanks. A URL never contains another URL.
        if not _is_address(cell) or len(names_in(cell)) == 1:
            try:
                return [self.find(cell)], []
            except DataError as error:
                if names_in(cell) == [cell]:
                    return [], [error]
        parts = names_in(cell)
        pictures: dict[Path, None] = {}
        errors = []
        for part in parts:
            try:
                pictures[self.find(part)] = None
            except DataError as error:
                errors.append(error)
        if not pictures and not errors:
            errors.append(DataError("names no picture"))
        return list(pictures), errors

    def find(self, cell: Any) -> Path:
        """The single picture that a cell names or contains.

        Raises:
            MissingPictureError: There is no such picture.
            UnreadablePictureError: The picture cannot be decoded.
            DataError: The cell is not a picture.
        """
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return self._checked(self._unpack(cell))
        if not isinstance(cell, str) or not cell.strip():
            raise DataError(f"expected the path of a picture, got {cell!r:.60}")
        name = cell.strip()
        if name.startswith("//"):  # a URL of the same protocol as its page
            name = f"https:{name}"
        name = _path_of_file_url(name)
        return self._checked(self._downloaded(name) if "://" in name else self._named(name))

    def _named(self, name: str) -> Path:
        """A picture by its path, which may be absolute if it is inside the folder."""
        if "\\" in name:  # as programs for Windows write
            name = PureWindowsPath(name).as_posix()
        if name.startswith("/") or PureWindowsPath(name).drive:
            try:
                inside = Path(name).relative_to(self._root.absolute())
            except ValueError:
                raise DataError(
                    f"expected a path relative to {self._root}, or to images_root, got "
                    f"{name!r:.200}, which is outside"
                ) from None
            name = inside.as_posix()
        try:
            return self._folder.find(name)
        except MissingPictureError:
            if "%" not in name:
                raise
            try:  # percent-encoded as in a URL
                return self._folder.find(unquote(name))
            except DataError:
                pass
            raise

    def _checked(self, path: Path) -> Path:
        if self._check:
            try:
                check_header(path)
            except (ImageError, MissingExtraError) as error:
                why = str(error).removeprefix(str(path)).lstrip(": ").removesuffix(".")
                raise UnreadablePictureError(f"picture {path.name!r}: {why}") from error
        return path

    def _downloaded(self, url: str) -> Path:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise DataError(f"{url!r:.80} is not a valid URL: {error}") from error
        if not self._has_downloads:
            raise DataError(
                f"{url!r:.80} is a URL, and finegrain downloads none. Download the pictures into a "
                "folder under their file names, and set images_root to it"
            )
        path = self._first(_saved_names(parts.netloc, parts.path, parts.query))
        # URLs that differ only in the query are versions of the same picture.
        address = f"{parts.netloc}{parts.path}"
        if self._urls.setdefault(path, address) != address:
            raise DataError(
                f"{path.name!r} is the file name of {address!r:.80} and of "
                f"{self._urls[path]!r:.80}. Download them under different names, such as with "
                "their folders, and name those in the catalogue"
            )
        return path

    def _first(self, names: Iterator[str]) -> Path:
        """The first name that exists."""
        missing = None
        for name in names:
            try:
                return self._folder.find(name)
            except MissingPictureError as error:
                missing = error
        raise missing or MissingPictureError("names no file")

    def _unpack(self, data: bytes) -> Path:
        if len(data) > MAX_FILE_BYTES:
            raise UnreadablePictureError(f"its picture is larger than {MAX_FILE_BYTES >> 20} MiB")
        ending = ending_of(data)
        if ending is None:
            raise UnreadablePictureError(
                f"its picture is of no known format (starts with {data[:8]!r})"
            )
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


def _path_of_file_url(name: str) -> str:
    """The path of a ``file://`` URL of this machine; other names are unchanged."""
    match = re.fullmatch(r"file:/{1,3}(?=[^/])(localhost/)?(.*)", name, re.IGNORECASE | re.DOTALL)
    if match is None:
        return name
    path = unquote(match[2])
    return path if PureWindowsPath(path).drive else f"/{path}"


def _is_address(name: Any) -> bool:
    return isinstance(name, str) and "://" in name


def names_in(cell: Any) -> list[Any]:
    """The parts of a cell with several pictures, or the cell itself."""
    if isinstance(cell, list):
        return cell[:_MAX_NAMES]
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    if text.startswith("["):
        listed = _listed(text)
        if listed:
            return listed[:_MAX_NAMES]
    if "://" in text:
        return _BEFORE_URL.split(text)[:_MAX_NAMES]
    for mark in _MARKS:
        parts = [part.strip() for part in text.split(mark) if part.strip()]
        if len(parts) > 1 and all(map(_looks_like_a_picture, parts)):
            return list(parts[:_MAX_NAMES])
    return [cell]


def _looks_like_a_picture(part: str) -> bool:
    """Whether a text ends with the ending of a file, and maybe the query of a URL after it."""
    return _PICTURE_ENDING.search(part.split()[-1]) is not None


def _listed(text: str) -> list[Any]:
    """The items of a list in the notation of JSON or Python."""
    for spelled in (text, text.replace("'", '"')):
        try:
            items = json.loads(spelled)
        except (ValueError, RecursionError):
            continue
        return items if isinstance(items, list) else []
    return []


def _saved_names(host: str, path: str, query: str) -> Iterator[str]:
    """Names under which a program may have saved a URL, the most specific first.

    wget and browsers differ in folders (``-x``), in the query after the name (``@`` instead of
    ``?`` on Windows), and in percent-encoding.
    """
    plain = unquote(path).lstrip("/")
    name = PurePosixPath(plain).name
    bases = dict.fromkeys((f"{host}/{plain}", plain, name, PurePosixPath(path).name))
    flat = query.replace("/", "%2F").replace("\\", "%5C")  # a name has no folders
    for base in filter(None, bases):
        if query:
            yield from (f"{base}{mark}{flat}" for mark in ("?", "@", "%3F"))
        yield base
