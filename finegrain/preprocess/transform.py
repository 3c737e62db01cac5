"""Resizes pictures to the input size of an image tower.

Training, evaluation, calibration, parity checks and search all use this class, so they see the
same pixels. The image graph applies the mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from finegrain.errors import ImageError

MAX_SIDE = 4096
"""Maximum height and width of the result, in pixels."""

Fit = Literal["stretch", "pad", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SHARPNESS = -0.75
"""Free parameter of cubic convolution (Keys 1981) with the value of PyTorch and OpenCV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """Resizes an RGB image to the input size of an image tower.

    Attributes:
        height: Rows of the result, in pixels.
        width: Columns of the result, in pixels.
        fit: ``stretch`` ignores the aspect ratio, as in person re-identification and SigLIP.
            ``crop`` scales the picture to cover the result and cuts out the centre, as in CLIP.
            ``pad`` scales the picture to fit and centres it on white.
        interpolation: Interpolation filter.
        antialias: Widen the filter when shrinking, as Pillow does. Without it, each pixel is
            interpolated from its two or four nearest pixels per axis, as
            ``torch.nn.functional.interpolate`` does by default.

    Raises:
        ImageError: An attribute is invalid.

    Example:
        >>> ImageTransform(height=256, width=128)(Image.new("RGB", (60, 90))).shape
        (3, 256, 128)
    """

    height: int
    width: int
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ImageError(
                f"expected height and width of 1 to {MAX_SIDE} pixels, got {self.height} and "
                f"{self.width}"
            )
        for name, value, known in (
            ("fit", self.fit, get_args(Fit)),
            ("interpolation", self.interpolation, get_args(Interpolation)),
        ):
            if value not in known:
                raise ImageError(f"expected {name} as one of {', '.join(known)}; got {value!r}")

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize a picture.

        Args:
            image: Result of :func:`~finegrain.preprocess.load_image`.

        Returns:
            Contiguous uint8 array ``[3, height, width]``.

        Raises:
            ImageError: The image is not of mode ``RGB``.
        """
        if image.mode != "RGB":
            raise ImageError(f"Expected an RGB image, got mode {image.mode}. Use load_image first.")
        match self.fit:
            case "stretch":
                resized = self._resized(image, self._size)
            case "pad":
                resized = self._padded(image)
            case "crop":
                resized = self._cropped(image)
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))

    @property
    def _size(self) -> tuple[int, int]:
        return self.width, self.height

    def _resized(
        self, image: Image.Image, size: tuple[int, int], box: Box | None = None
    ) -> Image.Image:
        if self.antialias:
            return image.resize(size, _FILTERS[self.interpolation], box)
        left, top, right, bottom = box or (0, 0, *image.size)
        pixels = np.asarray(image)
        across = _taps(left, right, image.width, size[0], self.interpolation)
        down = _taps(top, bottom, image.height, size[1], self.interpolation)
        # Rows first, then columns in a transposed view, so that both passes interpolate rows.
        mixed = _mix(_mix(pixels, down).swapaxes(0, 1), across).swapaxes(0, 1)
        return Image.fromarray(np.ascontiguousarray(np.rint(mixed).clip(0, 255).astype(np.uint8)))

    def _padded(self, image: Image.Image) -> Image.Image:
        scale = min(self.width / image.width, self.height / image.height)
        width = min(self.width, max(1, round(image.width * scale)))
        height = min(self.height, max(1, round(image.height * scale)))
        canvas = Image.new("RGB", self._size, "white")
        corner = ((self.width - width) // 2, (self.height - height) // 2)
        canvas.paste(self._resized(image, (width, height)), corner)
        return canvas

    def _cropped(self, image: Image.Image) -> Image.Image:
        """The centre, resized with the rounding of Resize and CenterCrop in torchvision."""
        across, down = image.width * self.height, image.height * self.width
        if across > down:
            width, height = across // image.height, self.height
        else:
            width, height = self.width, down // image.width
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        box = (left, top, left + self.width, top + self.height)
        if width * height <= MAX_SIDE**2:
            return self._resized(image, (width, height)).crop(box)
        # A long and thin picture would become huge, so only the visible part is resized.
        per_column, per_row = image.width / width, image.height / height
        part = (box[0] * per_column, box[1] * per_row, box[2] * per_column, box[3] * per_row)
        return self._resized(image, self._size, part)


@dataclass(frozen=True, slots=True)
class _Taps:
    """Source rows of each row of a result, and their weights: ``[N, taps]`` each."""

    rows: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]


def _taps(
    start: float, stop: float, num_rows: int, num_results: int, interpolation: Interpolation
) -> _Taps:
    """Compute taps without antialiasing; positions beyond an edge use the row at the edge."""
    positions = start + (np.arange(num_results) + 0.5) * ((stop - start) / num_results) - 0.5
    first = np.floor(positions)
    offsets = np.array([0, 1] if interpolation == "bilinear" else [-1, 0, 1, 2])
    distances = np.abs((positions - first)[:, None] - offsets)
    rows = (first[:, None] + offsets).clip(0, num_rows - 1)
    kernel = _linear if interpolation == "bilinear" else _cubic
    return _Taps(rows.astype(np.intp), kernel(distances).astype(np.float32))


def _linear(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - distances


def _cubic(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The kernel of cubic convolution (Keys 1981, equation 4) at distances up to 2."""
    d, a = distances, _SHARPNESS
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)


def _mix(pixels: npt.NDArray[np.number], taps: _Taps) -> npt.NDArray[np.float32]:
    """Compute weighted sums of rows; one tap at a time, which bounds the memory."""
    mixed = np.zeros((len(taps.rows), *pixels.shape[1:]), np.float32)
    for tap in range(taps.rows.shape[1]):
        mixed += taps.weights[:, tap, None, None] * pixels[taps.rows[:, tap]]
    return mixed
