"""Pictures that a caller adds to a gallery: files, folders, crops, arrays."""

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
    """Pictures to add.

    Attributes:
        pictures: The pictures. A :class:`Crop` is replaced by its address, which is opened and
            stored like a path.
        left_out: Files of a folder that are not pictures, with the reason.
    """

    pictures: Sequence[ImageSource]
    left_out: Sequence[Problem] = ()


def pictures_in(pictures: ImageSource | Crop | Iterable[ImageSource | Crop]) -> Given:
    """Collect the pictures of a folder, a file, an array, a Pillow image, or an iterable of these.

    Raises:
        ImageError: The file or folder does not exist, or the folder holds no picture.
    """
    if isinstance(pictures, str | Path):
        path = Path(pictures)
        # Unlike the methods of Path, these return False for a name that is invalid for a file.
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
    """Positions of pictures to add: those without a file, and the first one of each new path.

    Args:
        paths: Result of :func:`path_of` for each picture.
        known: Paths to skip.
    """
    known = set(known)
    for position, path in enumerate(paths):
        if path not in known:
            yield position
        if path is not None:
            known.add(path)


def name_problem(source: ImageSource) -> Problem | None:
    """A problem if the file name is not valid Unicode, which a gallery cannot store; else None."""
    path = path_of(source) or ""
    shown = path.encode("utf-8", "backslashreplace").decode()
    return (
        None
        if shown == path
        else Problem(where=shown, why="its name is not valid Unicode; rename it")
    )


def path_of(source: ImageSource) -> str | None:
    """The path under which a gallery stores a file, or None for other pictures."""
    # realpath fails for a name with a null character; loading the picture reports the problem.
    if isinstance(source, str | Path) and "\0" not in str(source):
        crop = Crop.of(source)
        return os.path.realpath(source) if crop is None else crop.address
    return None


def source_of(image: str | None, thumbnail: Callable[[], bytes | None]) -> Path | bytes | None:
    """Where to read a picture of a gallery from: its file, or its thumbnail.

    Args:
        image: Path of the picture, or None.
        thumbnail: Reads the thumbnail. It replaces a frame or crop whose file is gone.
    """
    if image is None:
        return thumbnail()
    return (thumbnail() if lacks_file(image) else None) or Path(image)


def lacks_file(image: str | None) -> bool:
    """Whether a picture is read from its thumbnail: it has no file, or its video is gone."""
    crop = None if image is None else Crop.of(image)
    return image is None or (crop is not None and not os.path.lexists(crop.path))


def thumbnail(source: ImageSource) -> bytes:
    """A JPEG file of at most 512 x 512, to store for a picture without a file."""
    image = load_image(source)
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
