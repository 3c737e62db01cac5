"""Lists the pictures of a folder, and everything else by kind."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from finegrain.errors import ImageError
from finegrain.preprocess.formats import MAGIC_BYTES, PICTURE_SUFFIXES, ending_of
from finegrain.preprocess.frames import VIDEO_SUFFIXES
from finegrain.records import Problem, ProblemKind

UNPACKED = ".pictures"
"""Suffix of the folders next to tables and archives into which their pictures are unpacked."""

_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xls", ".xml"}
_ARCHIVES = {".tar", ".zip", ".gz", ".tgz", ".7z", ".rar"}
_SYSTEM_FOLDERS = {
    "@eadir", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information",
    "lost+found", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".thumbnails",
}  # fmt: skip
_SYSTEM_FILES = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".nomedia", ".localized", "icon\r",
    "picasa.ini", ".picasa.ini",
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Folder:
    """Contents of a folder and its subfolders.

    Attributes:
        pictures: Files that are pictures by their suffix or by their first bytes, sorted.
        tables: Tables and archives, which are indexed separately, sorted.
        left_out: Everything else, with its kind.
    """

    pictures: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        """Problems of everything that is not a picture."""
        why = "is a table or an archive; index it by its own path"
        tables = [Problem(where=str(p), why=why, kind=ProblemKind.TABLE) for p in self.tables]
        return tables + self.left_out


def read_folder(root: Path, *, exclude: Sequence[str] = ()) -> Folder:
    """List a folder and its subfolders.

    Each linked folder is followed once, after all other folders. So a link into the folder itself
    neither hides nor repeats a picture. Folders and files of operating systems are skipped and
    reported.

    Args:
        root: Path of the folder.
        exclude: Shell patterns for names or for paths relative to ``root``, such as ``*.png`` or
            ``old/*``.

    Raises:
        ImageError: The folder cannot be listed.
    """
    listing = _Listing(root, exclude)
    listing.walk()
    listing.folder.pictures.sort()
    listing.folder.tables.sort()
    return listing.folder


class _Listing:
    """Walks through a folder."""

    def __init__(self, root: Path, exclude: Sequence[str]) -> None:
        self.folder = Folder()
        self._root = root
        self._exclude = exclude
        self._seen: set[tuple[int, int]] = set()

    def walk(self) -> None:
        plain, linked = [self._root], list[Path]()
        while plain or linked:
            path = plain.pop() if plain else linked.pop(0)
            self._enter(path, plain, linked)

    def _enter(self, path: Path, plain: list[Path], linked: list[Path]) -> None:
        """Sort the files of one folder, and queue its subfolders."""
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in self._seen:
                self._leave(path, "leads to a folder that is read already", ProblemKind.LINK)
                return
            self._seen.add(identity)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if path == self._root:
                raise ImageError(f"the folder {path} cannot be listed: {error}.") from error
            self._leave(path, f"cannot be listed: {error}", ProblemKind.FOLDER)
            return
        for entry in entries:
            inside = Path(entry.path)
            if self._is_skipped(inside, entry):
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else plain).append(inside)
            else:
                self._sort(inside, entry)

    def _is_skipped(self, path: Path, entry: os.DirEntry[str]) -> bool:
        name = entry.name.lower()
        relative = path.relative_to(self._root).as_posix()
        if any(fnmatchcase(entry.name, p) or fnmatchcase(relative, p) for p in self._exclude):
            self._leave(path, "is excluded", ProblemKind.EXCLUDED)
            return True
        is_folder = entry.is_dir()
        if is_folder and name.endswith(UNPACKED) and path.with_suffix("").exists():
            return True  # finegrain unpacked it from a table, which brings these pictures
        system = name in (_SYSTEM_FOLDERS if is_folder else _SYSTEM_FILES)
        if system or name.startswith(".trash" if is_folder else "._"):
            self._leave(path, "belongs to the operating system", ProblemKind.SYSTEM)
            return True
        return False

    def _sort(self, path: Path, entry: os.DirEntry[str]) -> None:
        """Add a file to the pictures, to the tables or to what is left out."""
        suffix = path.suffix.lower()
        if not entry.is_file():
            if entry.is_symlink() and not path.exists():
                self._leave(path, "leads nowhere", ProblemKind.DEAD_LINK)
            else:
                self._leave(path, "is neither a file nor a folder", ProblemKind.ENDING)
        elif suffix in PICTURE_SUFFIXES:
            self.folder.pictures.append(path)
        elif suffix in _TABLES or suffix in _ARCHIVES:
            self.folder.tables.append(path)
        elif suffix in VIDEO_SUFFIXES:
            why = "is a video; index it by its own path"
            self._leave(path, why, ProblemKind.VIDEO)
        else:
            self._sort_by_content(path)

    def _sort_by_content(self, path: Path) -> None:
        try:
            start = first_bytes(path)
        except OSError as error:
            self._leave(path, f"cannot be read: {error}", ProblemKind.PICTURE)
            return
        if ending_of(start) is not None:
            self.folder.pictures.append(path)
        else:
            why = "is empty" if not start else f"starts with {start[:8]!r}, so it is not a picture"
            self._leave(path, why, ProblemKind.ENDING)

    def _leave(self, path: Path, why: str, kind: ProblemKind) -> None:
        self.folder.left_out.append(Problem(where=str(path), why=why, kind=kind))


def first_bytes(path: Path) -> bytes:
    """First bytes of a regular file, which identify its format; empty for other kinds of files.

    Raises:
        OSError: The file cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return b""
    with path.open("rb") as stream:
        return stream.read(MAGIC_BYTES)
