"""Detects pictures whose headers take too long to parse.

Pillow parses headers in Python, step by step. A small or medium file can have millions of steps
before its first pixel, so they are counted here first, with at most one read for each.
"""

from __future__ import annotations

import os
from typing import IO, Literal

from finegrain.errors import ImageError

MAX_STEPS = 1 << 16
"""Maximum number of steps of a parser before the first pixel: bytes of padding, and blocks of GIF.
A comment of a GIF has one block for each 255 bytes."""

MAX_SEGMENTS = 4096
"""Maximum number of segments of a JPEG before its first scan."""

MAX_EXIF_BYTES = 1 << 20
"""Maximum size of the EXIF data of a JPEG. The standard allows 64 KiB."""

MAX_ENTRIES = 4096
"""Maximum number of entries of a directory of TIFF or EXIF; usual ones have a few dozen."""

MAX_VALUES = 1 << 19
"""Maximum number of values in a directory: a picture of 64 megapixels in tiles of 16 x 16 has as
many. Each becomes a Python object."""

MAX_TILE_PIXELS = 1 << 24
"""Maximum number of pixels of a tile of a TIFF, which is decoded whole for any picture."""

MAX_RLE_PIXELS = 4_000_000
"""Maximum number of pixels of a compressed BMP, which Pillow decodes in Python."""

MAX_RLE_BYTES = 1 << 22
"""Maximum size of a file of compressed BMP."""

_WITHOUT_HANDLER = frozenset([0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)])
"""Markers whose content, if they have any, Pillow skips byte by byte."""

_TILE_SIDES = (322, 323)
"""Numbers of the entries with the width and the height of the tiles of a TIFF."""

_SHORT = 3
_PLAIN_TYPES = (1, 2, 7)
"""Types whose values Pillow keeps as one text or one string of bytes."""


def check_header_work(stream: IO[bytes], name: str) -> None:
    """Check that a header takes little work to parse. The stream is left at its start.

    Raises:
        ImageError: The header of a JPEG, GIF, TIFF or BMP has too many parts.
    """
    stream.seek(0)
    start = stream.read(4)
    if start.startswith(b"\xff\xd8"):
        _check_jpeg(stream, name)
    elif start == b"GIF8":
        _check_gif(stream, name)
    elif start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        stream.seek(0)
        check_directory(stream, name)
    elif start.startswith(b"BM"):
        _check_bmp(stream, name)
    stream.seek(0)


def too_much_work(name: str, what: str) -> ImageError:
    """Create the error for a picture that takes too much work to parse or to decode."""
    return ImageError(
        f"{name}: the picture takes too much work to decode: {what}. Save it again with an image "
        "editor."
    )


def _check_jpeg(stream: IO[bytes], name: str) -> None:
    """Walk over the segments before the first scan."""
    segments = exif_bytes = 0
    stream.seek(2)
    byte = stream.read(1)
    for _ in range(MAX_STEPS):
        if byte != b"\xff":
            if not byte:
                return
            byte = stream.read(1)
            continue
        byte = stream.read(1)
        if byte in (b"", b"\xda"):
            return
        if byte == b"\xff":
            continue
        if byte[0] not in _WITHOUT_HANDLER:
            segments += 1
            at = stream.tell()
            size = max(2, int.from_bytes(stream.read(2)))
            exif_bytes += size if byte == b"\xe1" and stream.read(4) == b"Exif" else 0
            if segments > MAX_SEGMENTS:
                raise too_much_work(name, f"a JPEG of more than {MAX_SEGMENTS} segments")
            if exif_bytes > MAX_EXIF_BYTES:
                raise too_much_work(name, f"EXIF of more than {MAX_EXIF_BYTES >> 20} MiB")
            stream.seek(at + size)
        byte = stream.read(1)
    raise too_much_work(name, f"a JPEG with more than {MAX_STEPS} bytes between its segments")


def _check_gif(stream: IO[bytes], name: str) -> None:
    """Walk over the extensions before the first frame."""
    stream.seek(10)
    flags = stream.read(3)[:1]
    if flags >= b"\x80":
        stream.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)
    is_inside = False
    for _ in range(MAX_STEPS):
        byte = stream.read(1)
        if not byte:
            return
        if is_inside:
            stream.seek(byte[0], os.SEEK_CUR)
            is_inside = byte != b"\0"
        elif byte == b"!":
            stream.seek(1, os.SEEK_CUR)
            is_inside = True
        elif byte in (b",", b";"):
            return
    raise too_much_work(name, f"a GIF of more than {MAX_STEPS} blocks before its first frame")


def check_directory(stream: IO[bytes], name: str) -> None:
    """Check the first directory of a TIFF, or of EXIF, which has the same format.

    Raises:
        ImageError: It has too many entries or values, or its tiles are too large.
    """
    start = stream.read(8)
    is_big = b"+" in start[2:4]
    order: Literal["little", "big"] = "little" if start.startswith(b"I") else "big"
    place = stream.read(8) if is_big else start[4:]
    stream.seek(min(int.from_bytes(place, order), 1 << 40))
    num_entries = int.from_bytes(stream.read(8 if is_big else 2), order)
    if num_entries > MAX_ENTRIES:
        raise too_much_work(name, f"a directory of {num_entries:,} entries")
    num_values, tile_pixels = 0, 1
    for _ in range(num_entries):
        entry = stream.read(20 if is_big else 12)
        tag, kind = (int.from_bytes(entry[at : at + 2], order) for at in (0, 2))
        if kind not in _PLAIN_TYPES:
            num_values += int.from_bytes(entry[4 : 12 if is_big else 8], order)
        if num_values > MAX_VALUES:
            raise too_much_work(name, f"a directory of more than {MAX_VALUES:,} values")
        if tag in _TILE_SIDES:
            side = entry[12 if is_big else 8 :][: 2 if kind == _SHORT else 4]
            tile_pixels *= int.from_bytes(side, order)
    if tile_pixels > MAX_TILE_PIXELS:
        raise too_much_work(name, f"tiles of {tile_pixels:,} pixels")


def _check_bmp(stream: IO[bytes], name: str) -> None:
    """Check the size of a bitmap with run-length encoding."""
    stream.seek(18)
    width, height = (abs(int.from_bytes(stream.read(4), "little", signed=True)) for _ in range(2))
    stream.seek(30)
    compression = int.from_bytes(stream.read(4), "little")
    size = stream.seek(0, os.SEEK_END)
    if compression in (1, 2) and (width * height > MAX_RLE_PIXELS or size > MAX_RLE_BYTES):
        raise too_much_work(
            name,
            f"a compressed BMP of more than {MAX_RLE_PIXELS:,} pixels or {MAX_RLE_BYTES} bytes",
        )
