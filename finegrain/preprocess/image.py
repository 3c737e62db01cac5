"""Loads pictures from files, bytes and arrays as upright 8-bit RGB."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from finegrain.errors import ImageError, MissingExtraError
from finegrain.preprocess.crop import Crop
from finegrain.preprocess.formats import open_picture
from finegrain.preprocess.heif_bounds import check_container
from finegrain.preprocess.large import load_reduced, require_decodable, too_large
from finegrain.preprocess.work_bounds import check_directory, check_header_work, check_work

MAX_FILE_BYTES = 128 * 2**20
"""Maximum size of a file, in bytes."""

_HEADER_BYTES = 1 << 20
"""Number of bytes in which :func:`check_header` counts the parts of a file."""

ImageSource = str | Path | bytes | npt.NDArray[Any] | Image.Image

# On damaged input the plugins of Pillow raise errors of many types.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes a picture upright, by EXIF orientation."""

_QUARTER_TURNS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def load_image(source: ImageSource) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The EXIF orientation is applied. An animation gives its first frame. A transparent picture
    is composed on white. 16-bit grey is scaled (not clipped) to 8 bits. A picture of more than 25
    megapixels is reduced; see :mod:`finegrain.preprocess.large`.

    Args:
        source: Path of a file or address of a :class:`Crop`, the bytes of a file, a uint8
            array ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]`` in RGB(A) order, or a Pillow image.

    Returns:
        A new image of mode ``RGB``; the source is not changed.

    Raises:
        ImageError: The picture is missing, broken, truncated, too large, or of a format that
            is not accepted.
        MissingExtraError: The source is a frame of a video, or HEIF, and PyAV or pillow-heif is
            not installed.

    Example:
        >>> load_image(np.zeros((4, 2), np.uint8)).size
        (2, 4)
    """
    if isinstance(source, str | Path):
        crop = Crop.of(source)
        if crop is not None:
            whole, size = _whole(crop)
            return crop.cut(whole, size)
        return _decode(_read(Path(source)), str(source))[0]
    if isinstance(source, bytes):
        return _decode(source, f"the picture of {len(source)} bytes")[0]
    if isinstance(source, np.ndarray):
        return _upright_rgb(_from_array(source), "the array")[0]
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the Pillow image")[0]
    raise ImageError(
        "expected a picture as a path, bytes, a NumPy array or a Pillow image, got "
        f"{type(source).__name__}. Convert it to one of these."
    )


def check_header(path: Path) -> None:
    """Check the header of a picture, without decoding the picture.

    Raises:
        ImageError: The picture is missing, damaged, too large or of an unknown format.
        MissingExtraError: The format is HEIF, and pillow-heif is not installed.
    """
    name = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            _require_bytes(size, name)
            check_work(stream.read(_HEADER_BYTES), name)
            stream.seek(0)
            with _opened(stream, name):
                pass
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


_Size = tuple[int, int]
"""Original width and height of the upright picture, before it was reduced."""


def _whole(crop: Crop) -> tuple[Image.Image, _Size]:
    if crop.time is None:
        return _decode(_read(Path(crop.path)), str(crop.path))
    from finegrain.preprocess.frames import LONGEST_SIDE, frame_at  # only videos need it

    longest_side = LONGEST_SIDE if crop.box is None else None
    frame = Image.fromarray(frame_at(crop.path, crop.time, longest_side=longest_side).pixels)
    return frame, frame.size


def _read(path: Path) -> bytes:
    """Read a file, at most one byte more than the maximum size."""
    try:
        # Reading a named pipe or a device could block or never end, so only files are opened.
        if not path.is_file():
            reason = "is not a file" if path.exists() else "does not exist"
            raise ImageError(f"{path} {reason}. Pass the path of a picture.")
        with path.open("rb") as handle:
            return handle.read(MAX_FILE_BYTES + 1)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _decode(data: bytes, name: str) -> tuple[Image.Image, _Size]:
    _require_bytes(len(data), name)
    check_work(data, name)
    with _opened(io.BytesIO(data), name) as image:
        return _upright_rgb(image, name)


def _require_bytes(size: int, name: str) -> None:
    if not size:
        raise ImageError(f"{name}: the file is empty (0 bytes). Copy it again from its source.")
    if size > MAX_FILE_BYTES:
        raise ImageError(
            f"{name}: the file is larger than {MAX_FILE_BYTES // 2**20} MiB. "
            "Save the picture smaller or more compressed."
        )


def _opened(stream: IO[bytes], name: str) -> Image.Image:
    """Open a picture, and check the size in its header; nothing is decoded."""
    check_header_work(stream, name)
    check_container(stream, name)
    try:
        image = open_picture(stream, name)
    except ImageError:
        raise
    except _BOMBS as error:
        raise too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: the picture is damaged. Copy it again from its source.") from (
            error
        )
    except _DECODER_ERRORS as error:
        if isinstance(error, MissingExtraError):
            raise
        raise _broken(name, error) from error
    require_decodable(image, name)
    return image


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_fit or array.size == 0:
        raise ImageError(
            "expected a picture as uint8 array [H, W], [H, W, 3] or [H, W, 4], got "
            f"{array.dtype} of shape {list(array.shape)}. Scale it to 0..255 and put channels last."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _upright_rgb(image: Image.Image, name: str) -> tuple[Image.Image, _Size]:
    require_decodable(image, name)
    width, height = image.size
    if width == 0 or height == 0:
        raise ImageError(f"{name}: the picture has no pixels ({width} x {height}).")
    try:
        reduced = load_reduced(image)
        rgb = _to_rgb(reduced, name)
        turn = _TURNS.get(_orientation(image, name) or 1)
    except ImageError:
        raise
    except _BOMBS as error:
        raise too_large(name, str(error)) from error
    except _DECODER_ERRORS as error:
        raise _broken(name, error) from error
    if turn is None:
        return rgb, (width, height)
    upright = rgb.transpose(turn)
    is_swapped = turn in _QUARTER_TURNS
    return upright, (height, width) if is_swapped else (width, height)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # The conversion of Pillow clips at 255, which makes almost every picture white.
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise ImageError(
            f"{name}: pixels of mode {image.mode} have no fixed range of brightness. "
            "Convert the picture to 8-bit RGB first."
        )
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image, name: str) -> int | None:
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        check_directory(io.BytesIO(exif.removeprefix(b"Exif\0\0")), name)
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODER_ERRORS:
        return None  # the pixels are valid even if the EXIF block is damaged
    return value if isinstance(value, int) else None


def _unreadable(path: Path, error: BaseException) -> ImageError:
    return ImageError(f"{path} cannot be read: {error}. Check the path and its permissions.")


def _broken(name: str, error: BaseException) -> ImageError:
    return ImageError(
        f"{name}: the picture is broken or truncated ({type(error).__name__}: {error}). "
        "Copy it again from its source or save it again."
    )
