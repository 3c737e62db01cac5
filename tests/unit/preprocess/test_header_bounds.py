"""Parsing the header of a picture takes bounded work."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import GifImagePlugin, Image

from finegrain.errors import ImageError
from finegrain.preprocess import load_image
from finegrain.preprocess.image import check_header
from finegrain.preprocess.work_bounds import (
    MAX_ENTRIES,
    MAX_EXIF_BYTES,
    MAX_RLE_BYTES,
    MAX_STEPS,
    MAX_VALUES,
    check_header_work,
)


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 40)).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(before: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + before + data[2:]


def gif(before: bytes) -> bytes:
    data = saved("GIF")
    start = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    return data[:start] + before + data[start:]


def directory(*entries: tuple[int, int, int, int], count: int | None = None) -> bytes:
    """TIFF with one directory of entries: tag, type, number of values, value."""
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<LH", 8, count or len(entries)) + packed + bytes(4)


def big_directory(count: int) -> bytes:
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, count)


def png(exif: bytes) -> bytes:
    data = saved("PNG")
    chunk = b"eXIf" + exif
    return (
        data[:33]
        + struct.pack(">I", len(exif))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data[33:]
    )


def bitmap(width: int, height: int, body: bytes, compression: int = 1) -> bytes:
    info = struct.pack(
        "<LllHHLLllLL", 40, width, height, 1, 8, compression, len(body), 1, 1, 256, 0
    )
    start = 14 + len(info) + 1024
    head = b"BM" + struct.pack("<LHHL", start + len(body), 0, 0, start)
    return head + info + bytes(range(256)) * 4 + body


BIG_SEGMENT = b"\xff\xe2\xff\xff" + bytes(0xFFFD)
EXIF_SEGMENT = b"\xff\xe1\xff\xffExif\0\0" + bytes(0xFFFD - 6)

BOMBS = {
    "padding": jpeg(b"\xff" * (MAX_STEPS + 2)),
    "restart markers": jpeg(b"\xff\xd0" * MAX_STEPS),
    "stuffed bytes": jpeg(b"\xff\x00" * MAX_STEPS),
    "zeros": jpeg(bytes(MAX_STEPS + 2)),
    "segments without handler": jpeg(b"\xff\xf0\xff\xff" + bytes(MAX_STEPS)),
    "padding behind a MiB": jpeg(BIG_SEGMENT * 20 + b"\xff\xd0" * MAX_STEPS),
    "EXIF in many segments": jpeg(EXIF_SEGMENT * (MAX_EXIF_BYTES // 0xFFFF + 2)),
    "a GIF's comment of short blocks": gif(b"!\xfe" + b"\1a" * MAX_STEPS + b"\0"),
    "a GIF's extensions": gif(b"!\x01\x00" * MAX_STEPS),
    "a GIF's junk": gif(b"\1" * MAX_STEPS),
    "a TIFF's rationals": directory((50000, 5, MAX_VALUES + 1, 8)),
    "a TIFF's short numbers": directory(*((50000 + i, 3, MAX_VALUES // 10, 8) for i in range(11))),
    "a TIFF's entries": directory(count=MAX_ENTRIES + 1),
    "a big TIFF's entries": big_directory(1 << 40),
    "a TIFF's tiles": directory((322, 4, 1, 30_000), (323, 4, 1, 30_000)),
    "a TIFF's tiles in short numbers": directory((322, 3, 1, 30_000), (323, 3, 1, 30_000)),
    "compressed BMP of many pixels": bitmap(8000, 8000, b"\1\1\0\0" * 8000),
    "compressed BMP of many bytes": bitmap(8, 8, b"\0\2\0\0" * (MAX_RLE_BYTES // 4)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_headers_with_too_many_parts_are_refused(bomb: str, tmp_path: Path):
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[bomb])
    for read in (check_header, load_image):
        with pytest.raises(ImageError, match="takes too much work"):
            read(path)


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    calls = num_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.calls += 1
        self.num_bytes += len(data)
        return data


@pytest.mark.parametrize("bomb", BOMBS)
def test_checking_a_header_reads_little(bomb: str):
    stream = Counted(BOMBS[bomb] + bytes(1 << 22))
    with pytest.raises(ImageError):
        check_header_work(stream, bomb)
    assert stream.calls <= 3 * MAX_STEPS
    assert stream.num_bytes <= 4 * MAX_STEPS


def test_exif_with_too_many_values_is_refused_in_each_format():
    exif = directory((0x9999, 5, MAX_VALUES + 1, 8)) + bytes(100)
    for data in (png(exif), saved("WEBP", exif=exif), saved("JPEG", exif=b"Exif\0\0" + exif)):
        with pytest.raises(ImageError, match="takes too much work"):
            load_image(data)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(b"\xff" * 5000 + b"\xff\xd0" * 500 + BIG_SEGMENT * 40),
        jpeg(EXIF_SEGMENT * 10),
        gif(b"!\xfe" + (b"\xff" + b"a" * 255) * 5000 + b"\0"),
        saved("GIF", comment=b"red coat" * 1000),
        saved("TIFF", compression="tiff_lzw"),
        saved("TIFF", big_tiff=True),
        bitmap(8, 6, b"\x08\x05\0\0" * 6 + b"\0\1"),
        saved("BMP"),
        png(directory((0x0112, 3, 1, 1))),
    ],
)
def test_common_headers_are_read(data: bytes):
    assert load_image(data).size == (8, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_truncated_headers_are_reported_as_damaged():
    for kind in ("JPEG", "GIF", "TIFF", "BMP"):
        data = saved(kind)
        for length in range(1, 40):
            with pytest.raises(ImageError):
                load_image(data[:length])


def test_a_gif_of_very_many_frames_is_read_up_to_its_first(tmp_path: Path, monkeypatch):
    data = saved("GIF")
    first = data.index(b",")
    path = tmp_path / "a.gif"
    path.write_bytes(data[:-1] + data[first:-1] * 200_000 + b";")
    frames: list[int] = []
    seek = GifImagePlugin.GifImageFile._seek
    monkeypatch.setattr(
        GifImagePlugin.GifImageFile,
        "_seek",
        lambda image, frame, *rest: frames.append(frame) or seek(image, frame, *rest),
    )
    check_header(path)
    assert load_image(path).size == (8, 6)
    assert set(frames) == {0}


def test_a_jpeg_inside_a_tiff_has_the_bound_of_a_tiff():
    data = saved("TIFF", compression="jpeg")
    assert load_image(data).size == (8, 6)
    for tag, old, side in ((256, 8, 8200), (257, 6, 8200)):
        entry = struct.pack("<HHI", tag, 3, 1)
        assert entry + struct.pack("<I", old) in data
        data = data.replace(entry + struct.pack("<I", old), entry + struct.pack("<I", side))
    with pytest.raises(ImageError, match=r"too large \(8200 x 8200 pixels\); up to 64,000,000"):
        load_image(data)
