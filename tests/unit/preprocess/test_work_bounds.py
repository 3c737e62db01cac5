"""Decoding a small file takes bounded work."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from finegrain.errors import ImageError
from finegrain.preprocess import load_image
from finegrain.preprocess.work_bounds import (
    MAX_DESCRIPTIVE_CHUNKS,
    MAX_PARTS,
    MAX_SCANS,
    check_work,
)


def saved(kind: str, **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


def with_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = saved("JPEG", progressive=True)
    starts = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (count - len(starts)) + data[-2:]


def with_segments(count: int) -> bytes:
    data = saved("JPEG")
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(count: int, kind: bytes, body: bytes = b"", *, after: bool = False) -> bytes:
    data = saved("PNG")
    place = len(data) - 12 if after else 33
    return data[:place] + chunk(kind, body) * count + data[place:]


def frame(marker: int, side: int, scans: int) -> bytes:
    """A JPEG with three components, with one scan each and no content."""
    sides = struct.pack(">BHHB", 8, side, side, 3) + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    data = b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", 2 + len(sides)) + sides
    return data + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * scans + b"\xff\xd9"


BOMB = b"icc\0\0" + zlib.compress(bytes(1_000_000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_scans(MAX_SCANS + 1), f"more than {MAX_SCANS} scans"),
        (with_scans(4000), f"more than {MAX_SCANS} scans"),
        (frame(0xC0, 15_000, 2), "225,000,000 pixels in several scans"),
        (frame(0xC9, 100, 1), "arithmetic coding"),
        (frame(0xCA, 8000, 60), "arithmetic coding"),
        (with_segments(100_000), f"more than {MAX_PARTS} segments"),
        (with_chunks(MAX_DESCRIPTIVE_CHUNKS + 1, b"iCCP", BOMB), "a PNG of more than"),
        (with_chunks(30_000, b"iCCP", BOMB, after=True), "a PNG of more than"),
        (with_chunks(2_000_000, b"IDAT", after=True), "a PNG of more than"),
        (with_chunks(9_000, b"prVt"), "a PNG of more than"),
    ],
)
def test_pictures_that_take_too_much_work_are_refused(data: bytes, message: str):
    with pytest.raises(ImageError, match=f"takes too much work to decode.*{message}"):
        load_image(data)


def text_chunks() -> PngInfo:
    info = PngInfo()
    for number in range(100):
        info.add_text(f"key{number}", "value" * 50, zip=bool(number % 2))
    return info


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG"),
        saved("JPEG", progressive=True, restart_marker_blocks=1),
        saved("JPEG", quality=100, subsampling=0, comment=b"\xff\xda" * 200),
        saved("JPEG", progressive=True) + b"\xff\xda\x00\x02" * 500,  # a video after the picture
        with_scans(MAX_SCANS),
        with_segments(MAX_PARTS - 50),
        saved("PNG"),
        saved("PNG", pnginfo=text_chunks()),
        with_chunks(MAX_DESCRIPTIVE_CHUNKS - 20, b"prVt"),
        saved("GIF"),
        saved("WEBP"),
        saved("TIFF"),
    ],
)
def test_pictures_of_common_programs_are_decoded(data: bytes):
    assert load_image(data).size == (80, 96)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_or_damaged_header_ends_the_check(kind: str):
    data = saved(kind)
    for length in range(2, 60):
        with pytest.raises(ImageError):
            load_image(data[:length])


def test_padding_is_searched_once():
    padded = saved("JPEG")[:-2] + b"\xff" * 1_000_000
    assert load_image(padded + b"\xd9").size == (80, 96)
    check_work(padded, "cut")  # would take hours if each byte of the padding started a search
