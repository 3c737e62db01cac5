"""Detects small pictures that would take minutes to decode.

Limits on bytes and pixels do not bound the work of a decoder. A progressive JPEG processes all
pixels again in each scan. The headers of JPEG and PNG may have many parts, and the parser reads or
decompresses each of them. Cameras and editors write at most a few dozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finegrain.preprocess.header_bounds import too_much_work
from finegrain.preprocess.large import MAX_DECODED

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


def check_work(data: bytes, name: str) -> None:
    """Check that decoding a picture takes no more work than its size suggests.

    Raises:
        ImageError: A JPEG has too many scans or segments, or is of a kind that takes far more
            memory or time; or a PNG has too many chunks.
    """
    if data.startswith(_JPEG):
        _check_jpeg(data, name)
    elif data.startswith(_PNG):
        _check_png(data, name)


def _check_jpeg(data: bytes, name: str) -> None:
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
