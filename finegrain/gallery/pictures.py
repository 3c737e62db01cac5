"""What is given to a gallery as pictures: files, folders, parts of files, arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from finegrain.errors import ImageError
from finegrain.preprocess import Crop, ImageSource, load_image
from finegrain.preprocess.folder import read_folder
from finegrain.preprocess.formats import PICTURE_SUFFIXES
from finegrain.records import Problem

SUFFIXES = PICTURE_SUFFIXES
THUMBNAIL = (512, 512)


@dataclass(frozen=True, slots=True)
class Given:
    """What was given as pictures.

    Attributes:
        pictures: One by one; a :class:`Crop` as its address, which is opened and remembered
            like a path.
        left_out: What else a folder holds.
    """

    pictures: Sequence[ImageSource]
    left_out: Sequence[Problem] = ()


def pictures_in(pictures: ImageSource | Crop | Iterable[ImageSource | Crop]) -> Given:
    """What a folder, a file, an array, a Pillow image, or several of the latter three hold.

    Raises:
        ImageError: There is no such file or folder, or no picture in it.
    """
    if isinstance(pictures, str | Path):
        path = Path(pictures)
        # Other than Path's own, these are False for a name that no file can have.
        if os.path.isdir(path):
            return _in_folder(path)
        crop = Crop.of(path)
        if not os.path.isfile(path if crop is None else crop.path):
            raise ImageError(f"there is no picture or folder at {path}")
        return Given([path])
    if isinstance(pictures, bytes | np.ndarray | Image.Image):
        return Given([pictures])
    if isinstance(pictures, Crop):
        return Given([Path(pictures.address)])
    if isinstance(pictures, Iterable):
        return Given([Path(p.address) if isinstance(p, Crop) else p for p in pictures])
    raise ImageError(f"expected a folder or pictures, got {type(pictures).__name__}")


def _in_folder(path: Path) -> Given:
    folder = read_folder(path)
    if not folder.pictures:
        first = f"; {folder.problems[0]}" if folder.problems else ""
        raise ImageError(
            f"the folder {path} holds no picture ({', '.join(sorted(SUFFIXES))}){first}"
        )
    return Given(folder.pictures, folder.problems)


def unknown(paths: Iterable[str | None], known: set[str]) -> Iterator[int]:
    """Positions of the pictures without a file, and of each file's first mention.

    Args:
        paths: What :func:`path_of` gives for each picture.
        known: Paths that are passed over.
    """
    known = set(known)
    for position, path in enumerate(paths):
        if path not in known:
            yield position
        if path is not None:
            known.add(path)


def name_problem(source: ImageSource) -> Problem | None:
    """A file system may hold names that are no Unicode, and a gallery or JSON cannot."""
    path = path_of(source) or ""
    shown = path.encode("utf-8", "backslashreplace").decode()
    return None if shown == path else Problem(where=shown, why="its name is no Unicode; rename it")


def path_of(source: ImageSource) -> str | None:
    """The path that a gallery knows a file by, or None for other pictures."""
    # realpath refuses a name with a null character, which loading will name as a problem.
    if isinstance(source, str | Path) and "\0" not in str(source):
        crop = Crop.of(source)
        return os.path.realpath(source) if crop is None else crop.address
    return None


def source_of(image: str | None, thumbnail: Callable[[], bytes | None]) -> Path | bytes | None:
    """What to read a picture of a gallery from: its file, or what was kept of it.

    A frame outlives its video as a thumbnail, which is as large as the crop in most cases.
    """
    if image is None:
        return thumbnail()
    crop = Crop.of(image)
    if crop is None or os.path.lexists(crop.path):
        return Path(image)
    return thumbnail() or Path(image)


def thumbnail(source: ImageSource) -> bytes:
    """A JPEG file to keep of a picture that has none of its own."""
    image = load_image(source)
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
