"""Pictures that are small and would still take minutes to decode.

Size and pixels bound what a decoder reads and writes, but not how often. A progressive JPEG goes
over all its pixels once for each of its scans; both JPEG and PNG have a header of many parts, each
of which costs the parser something, or is decompressed. Cameras and editors write a few dozens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finegrain.errors import ImageError

MAX_SCANS = 64
"""Most scans of a JPEG. Progressive ones have about ten; a scan of 25 megapixels costs 30 ms."""

MAX_PARTS = 4096
"""Most segments of a JPEG that are no scans; a PNG may have one more chunk for each 512 bytes."""

MAX_DESCRIPTIVE_CHUNKS = 256
"""Most chunks of a PNG that are no pixels: profiles and texts, which are decompressed."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_LEAST_CHUNK_BYTES = 512

# A marker; within compressed data 0xFF is followed by 0, and restarts (D0 to D7) cost nothing.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = (0x01, 0xD8)  # markers without a length


def check_work(data: bytes, name: str) -> None:
    """Refuse the bytes of a picture that takes more work than its size suggests.

    Raises:
        ImageError: It is a JPEG of too many scans or segments, or a PNG of too many chunks.
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
    """The markers of a JPEG, up to its end; what they hold is passed over."""
    at = 2
    while (match := _MARKER.search(data, at)) is not None:
        marker = match[1][0]
        yield marker
        if marker == _END_OF_IMAGE:
            return
        at = match.end()
        if marker not in _ALONE:
            at += max(2, int.from_bytes(data[at : at + 2]))


def _check_png(data: bytes, name: str) -> None:
    at, number, descriptive = len(_PNG), 0, 0
    most = MAX_PARTS + len(data) // _LEAST_CHUNK_BYTES
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return
        number += 1
        descriptive += kind not in _PIXEL_CHUNKS
        if descriptive > MAX_DESCRIPTIVE_CHUNKS or number > most:
            raise _too_much(name, f"a PNG of more than {min(number, most) - 1} chunks")
        at += 12 + int.from_bytes(data[at : at + 4])


def _too_much(name: str, what: str) -> ImageError:
    return ImageError(
        f"{name}: the picture takes too much work to decode: {what}. Save it anew with an image "
        "editor."
    )
