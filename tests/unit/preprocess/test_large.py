"""Large pictures are decoded at a smaller size, and decompression bombs are refused."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from finegrain.errors import ImageError, MissingExtraError
from finegrain.preprocess import Crop, ImageTransform, large, load_image
from finegrain.preprocess.image import check_header

SMALL = 5_000
"""Largest number of decoded pixels in these tests."""


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.setattr(large, "MAX_PIXELS", SMALL)
    monkeypatch.setattr(large, "MAX_DECODED", 8 * SMALL)
    monkeypatch.setattr(large, "MAX_JPEG", 40 * SMALL)


def halves(width: int, height: int, mode="RGB") -> Image.Image:
    """A picture that is red on the left and blue on the right."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("blue", (width // 2, 0, width, height))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"),
     ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("GIF", "P"),
     ("AVIF", "RGB"), ("BMP", "RGB")],
)  # fmt: skip
def test_a_large_picture_of_any_format_is_reduced(limits, kind, mode):
    loaded = load_image(encoded(halves(240, 120, mode), kind))
    assert loaded.mode == "RGB"
    assert loaded.width * loaded.height <= SMALL
    assert loaded.width == 2 * loaded.height
    small = ImageTransform(height=8, width=16)(loaded).astype(int)
    whole = ImageTransform(height=8, width=16)(halves(240, 120, mode).convert("RGB")).astype(int)
    assert np.abs(small - whole).mean() < 12


def test_the_largest_jpeg_is_decoded_at_an_eighth(limits):
    loaded = load_image(encoded(halves(600, 320), "JPEG"))
    assert loaded.size == (75, 40)
    with pytest.raises(ImageError, match=r"too large \(700 x 320 pixels\)"):
        load_image(encoded(halves(700, 320), "JPEG"))


def test_formats_that_are_decoded_at_full_size_have_a_lower_limit(limits):
    for kind, options in (("PNG", {}), ("WEBP", {}), ("JPEG", {"progressive": True})):
        with pytest.raises(ImageError, match=r"too large \(300 x 200 pixels\)"):
            load_image(encoded(halves(300, 200), kind, **options))


def test_pictures_of_sixteen_bits_are_reduced(limits):
    wide = np.full((120, 240), 32896, np.uint16)
    loaded = load_image(encoded(Image.fromarray(wide), "PNG"))
    assert (np.asarray(loaded) == 128).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_box_refers_to_the_original_size(limits, tmp_path, orientation):
    upright = halves(240, 120)
    turns = {1: 0, 3: 180, 6: 90, 8: -90}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    upright.rotate(turns[orientation], expand=True).save(path, exif=exif, quality=95)
    for box, color in (((10, 10, 80, 80), (255, 0, 0)), ((140, 20, 90, 90), (0, 0, 255))):
        part = np.asarray(load_image(Crop(path, box=box).address)).astype(int)
        assert np.abs(part - color).mean() < 20
        assert part.shape[0] < 90
    with pytest.raises(ImageError, match="lies outside the picture of 240 x 120 pixels"):
        load_image(Crop(path, box=(240, 0, 5, 5)).address)
    assert load_image(Crop(path, box=(239, 119, 1, 1)).address).size == (1, 1)


def test_a_photograph_of_200_megapixels_is_read():
    """With the real limits; Pillow would refuse this size as a bomb."""
    loaded = load_image(encoded(Image.new("L", (16_384, 12_288), 99), "JPEG"))
    assert loaded.size == (4096, 3072)
    assert loaded.getpixel((9, 9)) == (99, 99, 99)


def test_the_size_is_checked_in_the_header(limits, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(halves(300, 200), "PNG"))
    with pytest.raises(ImageError, match="too large"):
        check_header(path)
    path.write_bytes(encoded(halves(60, 40), "PNG"))
    check_header(path)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="the file is empty"):
        check_header(path)
    with pytest.raises(ImageError, match="cannot be read"):
        check_header(tmp_path / "gone.png")


# --- HEIC -------------------------------------------------------------------------------


def heic(picture: Image.Image) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(picture).save(buffer, quality=90)
    return buffer.getvalue()


def test_heic_is_read_and_reduced(limits):
    loaded = load_image(heic(halves(240, 120)))
    assert (loaded.mode, loaded.width) == ("RGB", 2 * loaded.height)
    assert loaded.width * loaded.height <= SMALL
    left, right = loaded.getpixel((3, 3)), loaded.getpixel((loaded.width - 4, 3))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]
    with pytest.raises(ImageError, match="too large"):
        load_image(heic(halves(300, 200)))


def test_damaged_heic_is_an_image_error():
    data = heic(halves(64, 64))
    for cut in (100, len(data) // 2):
        with pytest.raises(ImageError):
            load_image(data[:cut])


def test_the_error_without_pillow_heif_names_the_extra(monkeypatch):
    data = heic(halves(64, 64))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"finegrain\[heic\]"):
        load_image(data)
