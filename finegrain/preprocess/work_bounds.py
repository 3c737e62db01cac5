"""Detects small pictures that would take minutes to parse or to decode.

Limits on bytes and pixels do not bound this work. Pillow parses headers in Python, step by step,
and a small file can have millions of steps before its first pixel. The headers of JPEG and PNG may
have many parts, which the parser reads or decompresses. A progressive JPEG processes all pixels
again in each scan. Cameras and editors write at most a few dozen parts and scans, so they are
counted here first, with at most one read for each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO, Literal

from finegrain.errors import ImageError
from finegrain.preprocess.large import MAX_DECODED

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

MAX_SCANS = 64
"""Maximum number of scans of a JPEG; a progressive one has about ten. A scan of 25 megapixels takes
30 ms."""

MAX_PARTS = 4096
"""Maximum number of segments of a JPEG without its scans, and of chunks of a PNG. A PNG may have
one further chunk for each 512 bytes."""

MAX_DESCRIPTIVE_CHUNKS = 256
"""Maximum number of chunks of a PNG without pixels: profiles and texts, which are decompressed."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_LEAST_CHUNK_BYTES = 512

# A marker. In compressed data 0 follows 0xFF; restart markers (D0 to D7) cost nothing.
# More 0xFF before it are padding. With "+", a long run of them would take quadratic time.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)
_START_OF_FRAME = (0xC0, 0xC1, 0xC2, 0xC3)
_ARITHMETIC = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
"""Kinds of frames whose scans cost up to a hundred times more than those in Huffman coding."""


def too_much_work(name: str, what: str) -> ImageError:
    """Create the error for a picture that takes too much work to parse or to decode."""
    return ImageError(
        f"{name}: the picture takes too much work to decode: {what}. Save it again with an image "
        "editor."
    )


# --- headers ----------------------------------------------------------------------------


def check_header_work(stream: IO[bytes], name: str) -> None:
    """Check that a header takes little work to parse. The stream is left at its start.

    Raises:
        ImageError: The header of a JPEG, GIF, TIFF or BMP has too many parts.
    """
    stream.seek(0)
    start = stream.read(4)
    if start.startswith(b"\xff\xd8"):
        _check_jpeg_header(stream, name)
    elif start == b"GIF8":
        _check_gif(stream, name)
    elif start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        stream.seek(0)
        check_directory(stream, name)
    elif start.startswith(b"BM"):
        _check_bmp(stream, name)
    stream.seek(0)


def _check_jpeg_header(stream: IO[bytes], name: str) -> None:
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


# --- scans and parts --------------------------------------------------------------------


def check_work(data: bytes, name: str) -> None:
    """Check that decoding a picture takes no more work than its size suggests.

    Raises:
        ImageError: A JPEG has too many scans or segments, or is of a kind that takes far more
            memory or time; or a PNG has too many chunks.
    """
    if data.startswith(_JPEG):
        _check_jpeg_scans(data, name)
    elif data.startswith(_PNG):
        _check_png(data, name)


def _check_jpeg_scans(data: bytes, name: str) -> None:
    scans = num_pixels = 0
    num_components = b""
    for number, (marker, at) in enumerate(_segments(data)):
        if marker in _ARITHMETIC:
            raise too_much_work(name, "a JPEG in arithmetic coding, which browsers do not show")
        if marker in _START_OF_FRAME:
            height, width = (
                int.from_bytes(data[at + 3 : at + 5]),
                int.from_bytes(data[at + 5 : at + 7]),
            )
            num_pixels, num_components = height * width, data[at + 7 : at + 8]
        if marker == _START_OF_SCAN:
            scans += 1
            # libjpeg then keeps all coefficients, as for a progressive JPEG.
            is_partial = data[at + 2 : at + 3] < num_components
            if is_partial and num_pixels > MAX_DECODED:
                raise too_much_work(name, f"{num_pixels:,} pixels in several scans")
        if scans > MAX_SCANS:
            raise too_much_work(name, f"a JPEG of more than {MAX_SCANS} scans")
        if number - scans > MAX_PARTS:
            raise too_much_work(name, f"a JPEG of more than {MAX_PARTS} segments")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG up to its end, and the positions of their contents."""
    at = 2
    while (match := _MARKER.search(data, at)) is not None:
        marker, at = match[1][0], match.end()
        yield marker, at
        if marker == _END_OF_IMAGE:
            return
        if marker not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2]))


def _check_png(data: bytes, name: str) -> None:
    at, number, descriptive = len(_PNG), 0, 0
    max_chunks = MAX_PARTS + len(data) // _LEAST_CHUNK_BYTES
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return
        number += 1
        descriptive += kind not in _PIXEL_CHUNKS
        if descriptive > MAX_DESCRIPTIVE_CHUNKS or number > max_chunks:
            raise too_much_work(name, f"a PNG of more than {min(number, max_chunks) - 1} chunks")
        at += 12 + int.from_bytes(data[at : at + 4])
