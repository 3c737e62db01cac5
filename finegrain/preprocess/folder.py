"""What a folder holds: its pictures, and everything else by kind."""

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
"""Ending of the folders that pictures of tables and archives are unpacked into, beside them."""

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
    """What is in a folder and the folders below it.

    Attributes:
        pictures: Files that are pictures by their ending or by their first bytes, in order.
        tables: Tables and archives, which say more than a file name.
        left_out: Everything else, by kind.
    """

    pictures: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        """All that is no picture."""
        why = "is a table or an archive; index it by its own name"
        tables = [Problem(where=str(p), why=why, kind=ProblemKind.TABLE) for p in self.tables]
        return tables + self.left_out


def read_folder(root: Path, *, exclude: Sequence[str] = ()) -> Folder:
    """List a folder and those below it.

    Linked folders are followed once each, after all others, so that a link into the folder
    itself never hides or repeats a picture. Folders and files of operating systems are named
    and left alone.

    Args:
        root: The folder.
        exclude: Shell patterns for names or for paths relative to `root`, such as ``*.png`` or
            ``old/*``.

    Raises:
        ImageError: It cannot be listed.
    """
    listing = _Listing(root, exclude)
    listing.walk()
    listing.folder.pictures.sort()
    listing.folder.tables.sort()
    return listing.folder


class _Listing:
    """A walk through a folder."""

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
        """List one folder, and note the folders in it."""
        try:
            about = path.stat()
            place = (about.st_dev, about.st_ino)
            if place in self._seen:
                self._leave(path, "leads to a folder that is read already", ProblemKind.LINK)
                return
            self._seen.add(place)
            with os.scandir(path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            if path == self._root:
                raise ImageError(f"the folder {path} cannot be listed: {error}.") from error
            self._leave(path, f"cannot be listed: {error}", ProblemKind.FOLDER)
            return
        for entry in entries:
            inside = Path(entry.path)
            if self._is_left_alone(inside, entry):
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else plain).append(inside)
            else:
                self._sort(inside, entry)

    def _is_left_alone(self, path: Path, entry: os.DirEntry[str]) -> bool:
        name = entry.name.lower()
        relative = path.relative_to(self._root).as_posix()
        if any(fnmatchcase(entry.name, p) or fnmatchcase(relative, p) for p in self._exclude):
            self._leave(path, "is excluded", ProblemKind.EXCLUDED)
            return True
        is_folder = entry.is_dir()
        if is_folder and name.endswith(UNPACKED) and path.with_suffix("").exists():
            return True  # what we unpacked ourselves comes with its table
        system = name in (_SYSTEM_FOLDERS if is_folder else _SYSTEM_FILES)
        if system or name.startswith(".trash" if is_folder else "._"):
            self._leave(path, "belongs to the operating system", ProblemKind.SYSTEM)
            return True
        return False

    def _sort(self, path: Path, entry: os.DirEntry[str]) -> None:
        """Put a file where it belongs."""
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
            why = "is a video; index it by its own name"
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
            what = "is empty" if not start else f"starts with {start[:8]!r}, as no picture does"
            self._leave(path, what, ProblemKind.ENDING)

    def _leave(self, path: Path, why: str, kind: ProblemKind) -> None:
        self.folder.left_out.append(Problem(where=str(path), why=why, kind=kind))


def first_bytes(path: Path) -> bytes:
    """The beginning of a regular file, by which its format is known; nothing of any other.

    Raises:
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return b""
    with path.open("rb") as stream:
        return stream.read(MAGIC_BYTES)
