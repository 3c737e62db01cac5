"""The files of pictures: whether they have changed, and those that finegrain unpacked.

A stamp of a file detects whether a picture has changed since it was encoded.

Pictures that finegrain unpacked from archives and tables lie in a folder beside their source, such
as ``crops.tar.pictures``, and are named by the first half of the SHA-256 of their content. A
gallery deletes them with its rows. Only a file whose content has the digest in its name is deleted,
so a user's own file in a folder of such a name is safe.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from finegrain.errors import GalleryWarning
from finegrain.gallery.row import Row, Stamp
from finegrain.preprocess import Crop
from finegrain.preprocess.folder import UNPACKED

_DIGEST_BYTES = 16
_NAME = re.compile(r"([0-9a-f]{32})\.[a-z0-9]+")


def file_of(image: str) -> Path:
    """The file that holds a picture; for a crop or a frame, the file it is cut from."""
    crop = Crop.of(image)
    return Path(image if crop is None else crop.path)


def is_there(image: str) -> bool:
    """Whether the file of a picture still exists."""
    return os.path.lexists(file_of(image))


def stamp_of(image: str) -> Stamp | None:
    """Size, time and digest of a picture's file; None if it cannot be read.

    A video has no digest, because reading it would take too long.
    """
    crop = Crop.of(image)
    path = file_of(image)
    try:
        about = path.stat()
        is_frame = crop is not None and crop.time is not None
        digest = None if is_frame else _digest(path)
    except OSError:
        return None
    return Stamp(size=about.st_size, mtime=about.st_mtime_ns, digest=digest)


def has_changed(row: Row, *, checksum: bool = False) -> bool:
    """Whether the file of a picture has changed since it was encoded; False if it is gone.

    A file with the same size and time is unchanged, unless ``checksum`` compares its digest as
    well. Otherwise the digests are compared. A row that an older version wrote has no stamp; its
    file has changed if it was written after the picture was added.
    """
    if row.image is None:
        return False
    try:
        about = file_of(row.image).stat()
    except OSError:
        return False
    if row.stamp is None:
        written = datetime.fromtimestamp(about.st_mtime, UTC)
        return written > datetime.fromisoformat(row.added_at)
    is_same_time = (about.st_size, about.st_mtime_ns) == (row.stamp.size, row.stamp.mtime)
    if is_same_time and not (checksum and row.stamp.digest is not None):
        return False
    now = stamp_of(row.image)
    return now is not None and (now.digest is None or now.digest != row.stamp.digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedFolder:
    """A folder of unpacked pictures.

    Attributes:
        path: Path of the folder.
        num_files: Number of unpacked pictures in it.
        num_bytes: Their size.
        num_unused: Number of those that no picture of the gallery uses.
    """

    path: Path
    num_files: int
    num_bytes: int
    num_unused: int

    def __str__(self) -> str:
        unused = f", {self.num_unused} of them not of this gallery" if self.num_unused else ""
        return f"{self.path}: {self.num_files} files, {self.num_bytes / 1e6:.1f} MB{unused}"


def unpacked_folders(images: Iterable[str]) -> list[UnpackedFolder]:
    """The folders with unpacked pictures among the paths of a gallery."""
    used: dict[Path, set[str]] = {}
    for image in images:
        if (file := unpacked_file(image)) is not None:
            used.setdefault(file.parent, set()).add(file.name)
    folders = []
    for folder, names in sorted(used.items()):
        sizes = {}
        with suppress(OSError), os.scandir(folder) as entries:
            sizes = {e.name: e.stat().st_size for e in entries if _NAME.match(e.name)}
        folders.append(
            UnpackedFolder(
                path=folder,
                num_files=len(sizes),
                num_bytes=sum(sizes.values()),
                num_unused=len(sizes.keys() - names),
            )
        )
    return folders


def unpacked_file(image: str) -> Path | None:
    """The file of a picture if its path is that of an unpacked picture; else None."""
    file = file_of(image)
    is_unpacked = file.parent.name.endswith(UNPACKED) and _NAME.fullmatch(file.name)
    return file if is_unpacked else None


def discard_unpacked(images: Iterable[str | None], is_used: Callable[[str], bool]) -> None:
    """Delete the unpacked files of pictures, and their folders if these are empty then.

    A file that cannot be deleted is reported by a :class:`GalleryWarning`.

    Args:
        images: Paths of pictures that leave a gallery.
        is_used: Whether another picture of the gallery, or a part of one, has a path.
    """
    files = {unpacked_file(image) for image in images if image is not None} - {None}
    kept = []
    for file in sorted(file for file in files if file is not None):
        if is_used(str(file)) or not _has_own_digest(file):
            continue
        try:
            file.with_name(f"{file.name}.partial").unlink(missing_ok=True)
            file.unlink()
        except OSError as error:
            kept.append(f"{file}: {error}")
            continue
        with suppress(OSError):  # it holds other files
            file.parent.rmdir()
    if kept:
        warnings.warn(
            f"{len(kept)} unpacked pictures cannot be deleted, such as {kept[0]}. Delete them.",
            GalleryWarning,
            stacklevel=3,
        )


def _has_own_digest(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return False  # it is gone, or on another machine
    return digest[:32] == file.name.partition(".")[0]
