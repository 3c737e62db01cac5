"""The file formats of pictures: how they are recognised and opened."""

from __future__ import annotations

from typing import IO

from PIL import Image, ImageFile, JpegImagePlugin, features

from finegrain.errors import ImageError, require

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""The formats that Pillow decodes for us; others never reach a decoder of its."""

HEIF = "HEIF"
"""Decoded by pillow-heif: what telephones by Apple and Samsung save as ``.heic``."""

PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".avif", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Endings by which a file is taken as a picture without looking into it."""

_MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
}
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

MAGIC_BYTES = 64
"""How much of a file :func:`ending_of` looks at."""


def ending_of(start: bytes) -> str | None:
    """The ending that a picture should have by its first bytes; None of another file."""
    for magic, ending in _MAGIC.items():
        if start.startswith(magic):
            return ending
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    # Many texts begin with BM too, so the size of the header behind it is looked at.
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BITMAP_HEADERS:
        return ".bmp"
    return _ending_by_brand(start)


def _ending_by_brand(start: bytes) -> str | None:
    """AVIF and HEIF share a container with MP4, whose brands tell what is inside."""
    if start[4:8] != b"ftyp":
        return None
    stop = min(int.from_bytes(start[:4], "big"), MAGIC_BYTES)
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, stop, 4))}
    if brands & _AVIF_BRANDS:
        return ".avif"
    return ".heic" if start[8:12] in _HEIF_BRANDS else None


def open_picture(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Read the header of a picture; nothing is decoded yet.

    Args:
        stream: Its file, from the start.
        name: For messages.

    Raises:
        ImageError: It is of no known format, or Pillow was built without that.
        MissingExtraError: It is HEIF, and pillow-heif is not installed.
        OSError, SyntaxError, ...: As decoders raise them on damaged headers.
    """
    start = stream.read(MAGIC_BYTES)
    stream.seek(0)
    ending = ending_of(start)
    if ending == ".heic":
        heif = require("pillow_heif", "heic")
        opened: ImageFile.ImageFile = heif.HeifImageFile(stream)
        return opened
    if ending == ".jpg":
        # Image.open refuses 179 megapixels at once, and a JPEG of more is decoded reduced.
        return JpegImagePlugin.jpeg_factory(stream)
    if ending == ".avif" and not features.check("avif"):
        raise ImageError(f"{name}: this Pillow was built without AVIF. Install it from a wheel.")
    if ending is None:
        raise ImageError(
            f"{name}: not a picture of a known format (starts with {start[:8]!r}). "
            f"Accepted are {', '.join((*FORMATS, HEIF))}."
        )
    return Image.open(stream, formats=FORMATS)
