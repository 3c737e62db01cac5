"""Broken and unusual pictures in adding and searching."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.errors import ImageError

NUM_CROPS = 12


def noise(height: int = 128, width: int = 64) -> Image.Image:
    rng = np.random.default_rng([height, width])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header states a size that its few bytes do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)


BROKEN = {
    "broken.jpg": b"\xff\xd8\xff\xe0" + bytes(range(256)),
    "truncated.jpg": jpeg(noise())[:1000],
    "header_only.png": png_that_claims(64, 128),
    "huge.png": png_that_claims(64_001, 1_000),
    "endless.png": png_that_claims(2**31 - 1, 2**31 - 1),
    "empty.jpg": b"",
    "text.jpg": b"this is no picture",
    "page.gif": b"<html></html>",
}


def write_unusual(folder: Path) -> list[str]:
    """Pictures that are valid but of rare kinds."""
    frames = [Image.new("RGB", (64, 128), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    noise().convert("CMYK").save(folder / "cmyk.jpg")
    wide = np.arange(128 * 64, dtype=np.uint16).reshape(128, 64) * 8
    Image.fromarray(wide).save(folder / "sixteen_bit.png")
    noise().quantize(16).save(folder / "palette.png")
    noise().convert("LA").save(folder / "transparent.png")
    noise().convert("1").save(folder / "two_tone.png")
    noise(97, 1).save(folder / "one_wide.png")
    noise(1, 97).save(folder / "one_high.png")
    (folder / "rotated.jpg").write_bytes(rotated(noise()))
    return sorted(path.name for path in folder.iterdir())


def test_broken_pictures_are_named_and_left_out(searcher, crops, tmp_path):
    folder = Path(shutil.copytree(crops, tmp_path / "mixed"))
    for name, data in BROKEN.items():
        (folder / name).write_bytes(data)
    added = searcher.add(folder, progress=False)
    assert len(added.ids) == len(searcher.gallery) == NUM_CROPS
    assert {Path(problem.where).name for problem in added.problems} == BROKEN.keys()
    why = {Path(problem.where).name: problem.why for problem in added.problems}
    assert "64,000,000 pixels" in why["huge.png"]
    assert "empty (0 bytes)" in why["empty.jpg"]
    assert "broken or truncated" in why["truncated.jpg"]
    assert "not a picture of a known format" in why["text.jpg"]


def test_a_repaired_picture_is_added(searcher, crops, tmp_path):
    path = tmp_path / "crop.jpg"
    path.write_bytes(BROKEN["truncated.jpg"])
    assert searcher.add(path, progress=False).ids == []
    shutil.copy(crops / "00.jpg", path)
    assert len(searcher.add(path, progress=False).ids) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_query_picture_is_refused(crops_searcher, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(ImageError, match=name):
        crops_searcher.query(path)
    assert len(crops_searcher.query("coat")) == 10


def test_unusual_pictures_are_added_and_matched(searcher, tmp_path):
    (tmp_path / "unusual").mkdir()
    names = write_unusual(tmp_path / "unusual")
    added = searcher.add(tmp_path / "unusual", progress=False)
    assert added.problems == []
    assert len(added.ids) == len(names)
    for name in names:
        first = searcher.query(tmp_path / "unusual" / name, 1)[0]
        assert Path(first.image).name == name
        assert first.open().mode == "RGB"


def test_a_picture_with_an_exif_rotation_is_searched_upright(searcher, tmp_path):
    noise().save(tmp_path / "upright.png")
    searcher.add([tmp_path / "upright.png", noise().rotate(90, expand=True)], progress=False)
    (tmp_path / "rotated.jpg").write_bytes(rotated(noise()))
    upright, turned = searcher.query(tmp_path / "rotated.jpg")
    assert Path(upright.image).name == "upright.png"
    assert upright.score > 0.98 > turned.score
