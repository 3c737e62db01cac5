"""Pictures that finegrain unpacked from archives and tables, which a gallery deletes with its rows.

They lie in a folder beside their source, such as ``crops.tar.pictures``, and are named by the first
half of the SHA-256 of their content. Only a file whose content has the digest in its name is
deleted, so a user's own file in a folder of such a name is safe.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finegrain.errors import GalleryWarning
from finegrain.gallery.stamps import file_of
from finegrain.preprocess.folder import UNPACKED

_NAME = re.compile(r"([0-9a-f]{32})\.[a-z0-9]+")


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
