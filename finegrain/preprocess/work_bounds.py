"""Detects small pictures that would take minutes to decode.

Limits on bytes and pixels do not bound the work of a decoder. A progressive JPEG processes all
pixels again in each scan. The headers of JPEG and PNG may have many parts, and the parser reads or
decompresses each of them. Cameras and editors write at most a few dozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finegrain.errors import ImageError

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
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)


def check_work(data: bytes, name: str) -> None:
    """Check that decoding a picture takes no more work than its size suggests.

    Raises:
        ImageError: A JPEG has too many scans or segments, or a PNG has too many chunks.
    """
    if data.startswith(_JPEG):
        _check_jpeg(data, name)
    elif data.startswith(_PNG):
        _check_png(data, name)


def _check_jpeg(data: bytes, name: str) -> None:
    scans = 0
    for number, marker in enumerate(_segments(data)):
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise _too_much(name, f"a JPEG of more than {MAX_SCANS} scans")
        if number - scans > MAX_PARTS:
            raise _too_much(name, f"a JPEG of more than {MAX_PARTS} segments")


def _segments(data: bytes) -> Iterator[int]:
    """The markers of a JPEG up to its end; their contents are skipped."""
    at = 2
    while (match := _MARKER.search(data, at)) is not None:
        marker = match[1][0]
        yield marker
        if marker == _END_OF_IMAGE:
            return
        at = match.end()
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
            raise _too_much(name, f"a PNG of more than {min(number, max_chunks) - 1} chunks")
        at += 12 + int.from_bytes(data[at : at + 4])


def _too_much(name: str, what: str) -> ImageError:
    return ImageError(
        f"{name}: the picture takes too much work to decode: {what}. Save it again with an image "
        "editor."
    )
