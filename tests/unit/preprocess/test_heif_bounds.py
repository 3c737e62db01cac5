"""Decoding a small HEIF or AVIF file takes bounded work and memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image, features

from finegrain.errors import ImageError
from finegrain.preprocess import load_image
from finegrain.preprocess.av1_frames import num_decoded_pixels
from finegrain.preprocess.heif_bounds import MAX_DESCRIPTION, MAX_ITEMS
from finegrain.preprocess.image import check_header

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")

SIDE = 64


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind: bytes, version: int, *parts: bytes) -> bytes:
    return box(kind, bytes((version, 0, 0, 0)), *parts)


def saved(**options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (200, 30, 40)).save(buffer, "AVIF", speed=10, **options)
    return buffer.getvalue()


def coded() -> tuple[bytes, bytes]:
    """Configuration and coded pixels of a red picture."""
    data = saved()
    at = data.find(b"av1C") - 4
    size = int.from_bytes(data[at : at + 4])
    return data[at : at + size], data[data.find(b"mdat") + 4 :]


def stated_size(width: int, height: int) -> bytes:
    return full(b"ispe", 0, struct.pack(">II", width, height))


Item = tuple[int, bytes, bytes, Sequence[int]]
"""Number, type, content, and the numbers of the properties."""


def container(
    items: Sequence[Item],
    properties: Sequence[bytes],
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    brand: bytes = b"avif",
) -> bytes:
    """A file whose first item is the picture; equal contents are stored once."""
    count = struct.pack(">H", len(items))
    kinds = full(
        b"iinf",
        0,
        count,
        *(full(b"infe", 2, struct.pack(">HH4sx", n, 0, kind)) for n, kind, _, _ in items),
    )
    links = (
        box(kind, struct.pack(f">HH{len(to)}H", start, len(to), *to))
        for kind, start, to in references
    )
    owners = (struct.pack(">HB", n, len(own)) + bytes(own) for n, _, _, own in items)
    linked = full(b"ipma", 0, struct.pack(">I", len(items)), *owners)
    tables = (kinds, full(b"iref", 0, *links), box(b"iprp", box(b"ipco", *properties), linked))
    start = box(b"ftyp", brand, bytes(4), b"mif1", brand, b"miaf")

    def meta(places: Mapping[bytes, int]) -> bytes:
        ranges = (
            struct.pack(">HHHII", n, 0, 1, places.get(content, 0), len(content))
            for n, _, content, _ in items
        )
        return full(
            b"meta",
            0,
            full(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full(b"pitm", 0, struct.pack(">H", 1)),
            full(b"iloc", 0, b"\x44\0", count, *ranges),
            *tables,
        )

    at, places = len(start) + len(meta({})) + 8, {}
    for _, _, content, _ in items:
        if content not in places:
            places[content] = at
            at += len(content)
    return start + meta(places) + box(b"mdat", *places)


CONFIGURATION, PIXELS = coded()
PIXI = full(b"pixi", 0, b"\3\x08\x08\x08")
PROPERTIES = (CONFIGURATION, stated_size(SIDE, SIDE), PIXI)
GRID = struct.pack(">BBBBHH", 0, 0, 1, 1, 2 * SIDE, 2 * SIDE)
LARGE = stated_size(8000, 7990)


def pictures(count: int, own: Sequence[int] = (1, 2, 3)) -> list[Item]:
    return [(n, b"av01", PIXELS, own) for n in range(1, count + 1)]


def tiles(content: bytes, brand: bytes = b"avif", kind: bytes = b"av01", side=SIDE) -> bytes:
    items = [(1, b"grid", GRID, (3, 4))]
    items += [(n, kind, content, (1, 2, 3)) for n in range(2, 6)]
    properties = (CONFIGURATION, stated_size(side, side), PIXI, stated_size(2 * SIDE, 2 * SIDE))
    return container(items, properties, [(b"dimg", 1, range(2, 6))], brand)


def hidden_frames(count: int) -> bytes:
    """A picture whose sequence header states 16,384 x 16,384 pixels, with frames of one byte."""
    # still picture, reduced header, level 0, 14 bits for each side
    header = int("000110000011011101" + "1" * 28 + "0" * 2, 2).to_bytes(6)
    return bytes((0x0A, len(header))) + header + b"\x32\x01\0" * count


def animation(frames: int) -> bytes:
    """An animation whose first sample has frames that are never shown."""
    sample = hidden_frames(frames)
    start = box(b"ftyp", b"avis", bytes(4), b"avis", b"msf1")

    def movie(place: int) -> bytes:
        sizes = full(b"stsz", 0, struct.pack(">III", 0, 1, len(sample)))
        table = box(b"stbl", sizes, full(b"stco", 0, struct.pack(">II", 1, place)))
        return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", table))))

    return start + movie(len(start) + len(movie(0)) + 8) + box(b"mdat", sample)


EXIF = bytes(2 << 20)
COPIES = MAX_DESCRIPTION // len(EXIF) + 1

BOMBS = {
    "items": (container(pictures(MAX_ITEMS + 1), PROPERTIES), "more than 4,096 items"),
    "properties": (
        container(pictures(1000, (1, 2, 3) * 80), PROPERTIES),
        "more than 65,536 references",
    ),
    "a profile of many pictures": (
        container(pictures(COPIES, (1, 2, 3, 4)), (*PROPERTIES, box(b"colr", b"prof", EXIF))),
        "other descriptions of 130 MiB",
    ),
    "EXIF of many pictures": (
        container(
            [*pictures(COPIES), (4000, b"Exif", EXIF, ())],
            PROPERTIES,
            [(b"cdsc", 4000, range(1, COPIES + 1))],
        ),
        "other descriptions of 130 MiB",
    ),
    "a large tile again and again": (
        container(
            [(1, b"grid", GRID, (2,)), (2, b"hvc1", PIXELS, (1, 3))],
            (CONFIGURATION, stated_size(SIDE, SIDE), LARGE),
            [(b"dimg", 1, [2] * 484)],
            b"heic",
        ),
        "for which 30,937,284,096 pixels are computed",
    ),
    "tiles larger than they say": (tiles(hidden_frames(1)), "1,073,758,208 pixels are computed"),
    "hidden frames": (
        container([(1, b"av01", hidden_frames(100), (1, 2, 3))], PROPERTIES),
        "26,843,545,600 pixels are computed",
    ),
    "parts of a frame": (
        container([(1, b"av01", b"\x22\0" * 5000, (1, 2, 3))], PROPERTIES),
        "in AV1 of too many parts",
    ),
    "hidden frames of an animation": (animation(100), "26,843,545,600 pixels are computed"),
    "items that refer to each other": (
        container(
            [(1, b"iden", b"", (2,)), (2, b"iden", b"", (2,))],
            PROPERTIES,
            [(b"dimg", 1, [2]), (b"dimg", 2, [1])],
        ),
        "derived from items more than 8 times",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_containers_that_take_too_much_work_are_refused(bomb: str, tmp_path: Path):
    data, message = BOMBS[bomb]
    path = tmp_path / "bomb"
    path.write_bytes(data)
    for read in (check_header, load_image):
        with pytest.raises(ImageError, match=f"takes too much work.*{message}"):
            read(path)


@pytest.mark.parametrize(
    ("data", "side"),
    [
        (saved(), SIDE),
        (saved(save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))] * 30), SIDE),
        (saved(exif=Image.Exif().tobytes() + bytes(1 << 20), icc_profile=bytes(1 << 20)), SIDE),
        (container(pictures(500), PROPERTIES), SIDE),
        (tiles(PIXELS), 2 * SIDE),
    ],
)
def test_common_containers_are_decoded(data: bytes, side: int):
    assert load_image(data).size == (side, side)


def test_frames_of_real_pictures_are_counted():
    assert num_decoded_pixels(memoryview(PIXELS)) == SIDE * SIDE
    assert num_decoded_pixels(memoryview(PIXELS * 3)) == 3 * SIDE * SIDE
    assert num_decoded_pixels(memoryview(b"")) == 0


def test_truncated_containers_are_reported_as_damaged():
    for data in (saved(), tiles(PIXELS), animation(1)):
        for length in range(1, len(data) - 1, 7):
            with pytest.raises(ImageError):
                load_image(data[:length])
