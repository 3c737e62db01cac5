"""Reduces pictures of phones and scanners, which have far more pixels than an image tower reads.

Such pictures are decoded at reduced size, so the limits below bound the memory. The decoder of JPEG
itself reduces the sides to a half, a quarter or an eighth, and holds only the reduced pixels. Other
formats and progressive JPEG are decoded at full size first.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, JpegImagePlugin

from finegrain.errors import ImageError

MAX_PIXELS = 25_000_000
"""Maximum number of pixels after reduction."""

MAX_DECODED = 64_000_000
"""Maximum number of pixels of formats that are decoded at full size: 0.2 GB as RGB."""

MAX_JPEG = 250_000_000
"""Maximum number of pixels of a JPEG, which is decoded reduced; phones save up to 200 million."""

_JPEG_SCALES = (1, 2, 4, 8)


def require_decodable(image: Image.Image, name: str) -> None:
    """Check the size in the header of a picture before it is decoded.

    Raises:
        ImageError: The picture is too large for its format.
    """
    width, height = image.size
    is_reducible = (
        isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" not in image.info
    )
    limit = MAX_JPEG if is_reducible else MAX_DECODED
    if width * height > limit:
        raise too_large(name, f"{width} x {height} pixels", limit)


def too_large(name: str, size: str, limit: int = MAX_DECODED) -> ImageError:
    """Create the error for a picture that is too large."""
    return ImageError(
        f"{name}: the picture is too large ({size}); up to {limit:,} pixels of its format are "
        f"decoded, and {MAX_JPEG:,} of JPEG that is not progressive. Make it smaller first."
    )


def load_reduced(image: Image.Image) -> Image.Image:
    """Decode a picture, reduced to at most :data:`MAX_PIXELS` pixels.

    Returns:
        The reduced image, or ``image`` itself if it is small enough.
    """
    width, height = image.size
    if width * height <= MAX_PIXELS:
        image.load()
        return image
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        fits = [s for s in _JPEG_SCALES if -(-width // s) * -(-height // s) <= MAX_PIXELS]
        scale = fits[0] if fits else _JPEG_SCALES[-1]
        image.draft(None, (width // scale, height // scale))
    image.load()
    return _reduced(image)


def _reduced(image: Image.Image) -> Image.Image:
    factor = math.ceil(math.sqrt(image.width * image.height / MAX_PIXELS))
    if factor == 1:
        return image
    if image.mode.startswith("I;16"):
        # Pillow cannot average 16-bit pixels.
        return Image.fromarray(np.ascontiguousarray(np.asarray(image)[::factor, ::factor]))
    if image.mode not in ("L", "RGB", "RGBA", "CMYK", "YCbCr"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.reduce(factor)
