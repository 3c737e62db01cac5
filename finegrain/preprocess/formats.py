"""Recognises and opens the file formats of pictures."""

from __future__ import annotations

from typing import IO

from PIL import Image, ImageFile, JpegImagePlugin, features

from finegrain.errors import ImageError, require

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
"""Formats that Pillow may decode; its decoders of other formats are never called."""

HEIF = "HEIF"
"""Format that pillow-heif decodes; phones of Apple and Samsung save it as ``.heic``."""

PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".avif", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Suffixes of files that are pictures, with any content."""

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
"""Number of bytes at the start of a file that :func:`ending_of` reads."""


def ending_of(start: bytes) -> str | None:
    """File suffix of a picture, according to its first bytes; None for other files."""
    for magic, ending in _MAGIC.items():
        if start.startswith(magic):
            return ending
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    # Many texts begin with BM, too, so the size of the bitmap header is checked.
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BITMAP_HEADERS:
        return ".bmp"
    return _ending_by_brand(start)


def _ending_by_brand(start: bytes) -> str | None:
    """Suffix of AVIF and HEIF, whose container is that of MP4; its brands identify the content."""
    if start[4:8] != b"ftyp":
        return None
    stop = min(int.from_bytes(start[:4], "big"), MAGIC_BYTES)
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, stop, 4))}
    if brands & _AVIF_BRANDS:
        return ".avif"
    return ".heic" if start[8:12] in _HEIF_BRANDS else None


def open_picture(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Read the header of a picture, without decoding it.

    Args:
        stream: The file, positioned at its start.
        name: Name of the picture in messages.

    Raises:
        ImageError: The format is unknown, or Pillow was built without it.
        MissingExtraError: The format is HEIF, and pillow-heif is not installed.
        OSError, SyntaxError, ...: The header is damaged; decoders raise errors of many types.
    """
    start = stream.read(MAGIC_BYTES)
    stream.seek(0)
    ending = ending_of(start)
    if ending == ".heic":
        heif = require("pillow_heif", "heic")
        opened: ImageFile.ImageFile = heif.HeifImageFile(stream)
        return opened
    if ending == ".jpg":
        # Image.open refuses more than 179 megapixels, but a larger JPEG can be decoded reduced.
        return JpegImagePlugin.jpeg_factory(stream)
    if ending == ".avif" and not features.check("avif"):
        raise ImageError(f"{name}: this Pillow was built without AVIF. Install it from a wheel.")
    if ending is None:
        raise ImageError(
            f"{name}: not a picture of a known format (starts with {start[:8]!r}). "
            f"Accepted are {', '.join((*FORMATS, HEIF))}."
        )
    return Image.open(stream, formats=FORMATS)
