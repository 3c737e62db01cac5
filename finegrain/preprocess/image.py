"""The one way a picture becomes the array that an image tower reads.

Training's evaluation, calibration, export parity and serving all come through here, so
a picture has the same pixels in each of them. Mean and standard deviation are no part of
it: they are inside the image graph.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from finegrain.errors import ImageError
from finegrain.preprocess.crop import Crop

MAX_PIXELS = 25_000_000
"""Largest picture that is decoded, by the size its header states."""

MAX_FILE_BYTES = 64 * 2**20
"""Largest file that is read."""

MAX_SIDE = 4096
"""Largest height or width that :class:`ImageTransform` resizes to."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The file formats that are decoded; others never reach a decoder."""

ImageSource = str | Path | bytes | npt.NDArray[Any] | Image.Image

# Pillow's plugins let the errors of their parsers out on damaged input, each its own kind.
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
"""What makes a picture upright, by its EXIF orientation."""

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def load_image(source: ImageSource) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The EXIF orientation is applied, the first frame of an animation is taken,
    transparency is laid on white, and 16-bit grey is scaled (not clipped) to 8 bits.

    Args:
        source: Path of a file or address of a :class:`Crop`, the bytes of a file, a uint8
            array ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]`` in RGB(A) order, or a Pillow image.

    Returns:
        A new image of mode ``RGB``; the source is never changed.

    Raises:
        ImageError: The picture is missing, broken, truncated, too large, or of a kind that
            is not accepted.
        MissingExtraError: It is a frame of a video, and PyAV is not installed.
    """
    if isinstance(source, str | Path):
        crop = Crop.of(source)
        if crop is not None:
            return crop.cut(_whole(crop))
        return _decode(_read(Path(source)), str(source))
    if isinstance(source, bytes):
        return _decode(source, f"the {len(source)} bytes given")
    if isinstance(source, np.ndarray):
        return _upright_rgb(_from_array(source), "the array given")
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the Pillow image given")
    raise ImageError(
        f"A picture is a path, bytes, a NumPy array or a Pillow image; got "
        f"{type(source).__name__}. Convert it to one of these."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """Resize an RGB image to the size an image tower was trained on.

    Attributes:
        height: Rows of the result, in pixels.
        width: Columns of the result, in pixels.
        fit: ``stretch`` ignores the aspect ratio, as person re-identification does with its
            tall crops; ``pad`` keeps it and centres the picture on white.
    """

    height: int
    width: int
    fit: Literal["stretch", "pad"] = "stretch"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ImageError(
                f"height and width are 1 to {MAX_SIDE} pixels; got {self.height} and {self.width}."
            )
        if self.fit not in ("stretch", "pad"):
            raise ImageError(f"fit is 'stretch' or 'pad'; got {self.fit!r}.")

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize with antialiased bilinear filtering.

        Args:
            image: As :func:`load_image` returns it.

        Returns:
            Contiguous uint8 array ``[3, height, width]``.

        Raises:
            ImageError: The image is not of mode ``RGB``.
        """
        if image.mode != "RGB":
            raise ImageError(f"Expected an RGB image, got mode {image.mode}. Use load_image first.")
        resized = self._padded(image) if self.fit == "pad" else self._resized(image, self._size)
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))

    @property
    def _size(self) -> tuple[int, int]:
        return self.width, self.height

    @staticmethod
    def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize(size, Image.Resampling.BILINEAR)

    def _padded(self, image: Image.Image) -> Image.Image:
        scale = min(self.width / image.width, self.height / image.height)
        width = min(self.width, max(1, round(image.width * scale)))
        height = min(self.height, max(1, round(image.height * scale)))
        canvas = Image.new("RGB", self._size, "white")
        corner = ((self.width - width) // 2, (self.height - height) // 2)
        canvas.paste(self._resized(image, (width, height)), corner)
        return canvas


def _whole(crop: Crop) -> Image.Image:
    if crop.time is None:
        return _decode(_read(Path(crop.path)), str(crop.path))
    from finegrain.preprocess.frames import LONGEST_SIDE, frame_at  # it keeps to our limits

    longest_side = LONGEST_SIDE if crop.box is None else None
    return Image.fromarray(frame_at(crop.path, crop.time, longest_side=longest_side).pixels)


def _read(path: Path) -> bytes:
    """Read a whole file, but never more than the byte budget."""
    try:
        # A named pipe or a device would block or never end, so only files are opened.
        if not path.is_file():
            found = "is not a file" if path.exists() else "does not exist"
            raise ImageError(f"{path} {found}. Give the path of a picture.")
        with path.open("rb") as handle:
            return handle.read(MAX_FILE_BYTES + 1)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}. Check the path and its rights.") from (
            error
        )


def _decode(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes). Copy it again from its source.")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(
            f"{name}: the file is larger than {MAX_FILE_BYTES // 2**20} MiB. "
            "Save the picture smaller or more compressed."
        )
    try:
        # Opening reads the header only; pixels are decoded after the budget is checked.
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not a picture of a known format (starts with {data[:8]!r}). "
            f"Accepted are {', '.join(FORMATS)}."
        ) from error
    except _BOMBS as error:
        raise _too_large(name, str(error)) from error
    except _DECODER_ERRORS as error:
        raise _broken(name, error) from error
    return _upright_rgb(image, name)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_fit or array.size == 0:
        raise ImageError(
            "An array picture is uint8 of shape [H, W], [H, W, 3] or [H, W, 4]; got "
            f"{array.dtype} of shape {list(array.shape)}. Scale it to 0..255 and put channels last."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels")
    if width == 0 or height == 0:
        raise ImageError(f"{name}: the picture has no pixels ({width} x {height}).")
    try:
        image.load()
        rgb = _to_rgb(image, name)
        turn = _TURNS.get(_orientation(image) or 1)
        return rgb if turn is None else rgb.transpose(turn)
    except ImageError:
        raise
    except _BOMBS as error:
        raise _too_large(name, str(error)) from error
    except _DECODER_ERRORS as error:
        raise _broken(name, error) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns nearly every picture white.
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


def _orientation(image: Image.Image) -> int | None:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODER_ERRORS:
        return None  # a damaged EXIF block is no reason to refuse sound pixels
    return value if isinstance(value, int) else None


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(
        f"{name}: the picture is too large ({found}); up to {MAX_PIXELS:,} pixels are decoded. "
        "Make it smaller first."
    )


def _broken(name: str, error: BaseException) -> ImageError:
    return ImageError(
        f"{name}: the picture is broken or truncated ({type(error).__name__}: {error}). "
        "Copy it again from its source or save it anew."
    )
