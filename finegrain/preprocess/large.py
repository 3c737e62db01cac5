"""Pictures of more pixels than any tower looks at, as telephones and scanners take them.

They are decoded reduced, so that memory stays bounded by the limits here. A JPEG is reduced by
its decoder (a half, a quarter or an eighth of its sides), which holds the reduced pixels only.
Other formats, and progressive JPEG, have to be decoded whole before they are reduced.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, JpegImagePlugin

from finegrain.errors import ImageError

MAX_PIXELS = 25_000_000
"""Largest picture that is passed on; a larger one is reduced to fit."""

MAX_DECODED = 64_000_000
"""Largest picture of a format that is decoded whole: 0.2 GB as RGB."""

MAX_JPEG = 250_000_000
"""Largest JPEG, which is decoded reduced; telephones take up to 200 megapixels."""

_JPEG_SCALES = (1, 2, 4, 8)


def require_decodable(image: Image.Image, name: str) -> None:
    """Refuse a picture by the size that its header states, before it is decoded.

    Raises:
        ImageError: It is too large for its format.
    """
    width, height = image.size
    reduced = isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" not in image.info
    limit = MAX_JPEG if reduced else MAX_DECODED
    if width * height > limit:
        raise too_large(name, f"{width} x {height} pixels", limit)


def too_large(name: str, size: str, limit: int = MAX_DECODED) -> ImageError:
    """The error for a picture of so many pixels."""
    return ImageError(
        f"{name}: the picture is too large ({size}); up to {limit:,} pixels of its format are "
        f"decoded, and {MAX_JPEG:,} of JPEG that is not progressive. Make it smaller first."
    )


def load_reduced(image: Image.Image) -> Image.Image:
    """Decode a picture, reduced to at most `MAX_PIXELS`; the same image where it is smaller.

    Its size afterwards says by how much.
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
        # Pillow does not average 16 bits
        return Image.fromarray(np.ascontiguousarray(np.asarray(image)[::factor, ::factor]))
    if image.mode not in ("L", "RGB", "RGBA", "CMYK", "YCbCr"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.reduce(factor)
