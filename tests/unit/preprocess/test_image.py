from __future__ import annotations

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from finegrain.errors import ImageError
from finegrain.preprocess import image as subject
from finegrain.preprocess.formats import FORMATS
from finegrain.preprocess.image import load_image

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 16, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def with_orientation(image: Image.Image, value: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, kind, exif=exif)


# --- accepted pictures ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_same_pixels_by_path_and_by_bytes(tmp_path: Path, kind: str):
    data = encoded(Image.fromarray(NOISE), kind)
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (path, str(path), data):
        np.testing.assert_array_equal(pixels(load_image(source)), NOISE)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_opens_as_rgb(kind: str):
    loaded = load_image(encoded(Image.new("RGB", (7, 9), (200, 40, 40)), kind))
    assert (loaded.mode, loaded.size) == ("RGB", (7, 9))
    assert np.abs(pixels(loaded).astype(int) - (200, 40, 40)).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(kind: str, value: int):
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[value]
    blocks = np.zeros((32, 48, 3), np.uint8)
    blocks[:16, :16] = (255, 0, 0)
    blocks[16:, 32:] = (0, 0, 255)
    data = with_orientation(Image.fromarray(blocks), value, kind)
    expected = turned(blocks).astype(int)
    for source in (data, Image.open(io.BytesIO(data))):
        loaded = pixels(load_image(source)).astype(int)
        assert loaded.shape == expected.shape
        assert np.abs(loaded - expected).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_refuse_the_picture():
    picture = Image.fromarray(NOISE)
    data = encoded(picture, "PNG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff\x01")
    np.testing.assert_array_equal(pixels(load_image(data)), NOISE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str):
    wide = np.array([[0, 128, 257], [25700, 32896, 65535]], np.uint16)
    loaded = pixels(load_image(encoded(Image.fromarray(wide), kind)))
    np.testing.assert_array_equal(loaded[..., 0], [[0, 0, 1], [100, 128, 255]])
    np.testing.assert_array_equal(loaded[..., 0], loaded[..., 2])


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("RGBA", (10, 200, 30, 0)), ("LA", (7, 0))],
)
def test_transparent_pixels_become_white(mode: str, colour):
    loaded = load_image(encoded(Image.new(mode, (3, 2), colour), "PNG"))
    assert (pixels(loaded) == 255).all()


def test_half_transparency_blends_with_white():
    loaded = load_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG"))
    assert np.abs(pixels(loaded).astype(int) - 127).max() <= 1


def test_a_transparent_palette_entry_becomes_white():
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    loaded = load_image(encoded(picture, "PNG", transparency=0))
    np.testing.assert_array_equal(pixels(loaded), [[[255, 255, 255], [0, 255, 0]]])


def test_cmyk_and_one_bit_pictures_keep_their_colours():
    cmyk = load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = pixels(cmyk)[4, 4].astype(int)
    assert red > 200
    assert max(green, blue) < 60
    one_bit = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(
        pixels(load_image(encoded(one_bit, "TIFF"))), [[[255] * 3, [0] * 3]]
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(load_image(data)).astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 4), (1, 1), (9, 1, 3)])
def test_arrays_are_accepted(shape):
    array = np.full(shape, 255, np.uint8)
    assert load_image(array).size == (shape[1], shape[0])
    assert load_image(array[::-1]).mode == "RGB"


def test_the_input_array_is_not_changed():
    picture = Image.fromarray(NOISE)
    loaded = load_image(picture)
    loaded.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(pixels(picture), NOISE)


# --- refused pictures -------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_by_shape_and_dtype(array):
    with pytest.raises(ImageError) as caught:
        load_image(array)
    assert str(array.dtype) in str(caught.value)
    assert str(list(array.shape)) in str(caught.value)


def test_other_types_are_refused():
    with pytest.raises(ImageError, match="got int"):
        load_image(3)  # type: ignore[arg-type]


def test_missing_files_directories_and_pipes_are_refused(tmp_path: Path):
    with pytest.raises(ImageError, match=r"gone\.jpg does not exist"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path / "pipe")
    with pytest.raises(ImageError):
        load_image("nul\0byte.jpg")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png cannot be read"):
        load_image(path)


def test_empty_and_other_files_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"empty.jpg: the file is empty"):
        load_image(path)
    path.write_bytes(b"%PDF-1.7 something else")
    with pytest.raises(ImageError, match="not a picture of a known format"):
        load_image(path)


def test_an_unlisted_format_is_never_decoded():
    with pytest.raises(ImageError, match="not a picture of a known format"):
        load_image(encoded(Image.new("RGB", (4, 4)), "PPM"))


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused(kind: str):
    data = encoded(Image.fromarray(np.tile(NOISE, (4, 4, 1))), kind)
    with pytest.raises(ImageError):
        load_image(data[: len(data) // 2])


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    data = encoded(Image.new("1", (9000, 8000)), "PNG")

    def decoded(_):
        raise AssertionError("decoded a picture over the budget")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(ImageError, match="9000 x 8000 pixels"):
        load_image(data)
    with pytest.raises(ImageError, match="too large"):
        load_image(Image.new("1", (9000, 8000)))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bombs_are_refused(side: int):
    data = encoded(Image.new("1", (side, side)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="too large"):
            load_image(data)


def test_files_over_the_byte_budget_are_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(subject, "MAX_FILE_BYTES", 2**20)
    path = tmp_path / "huge.bmp"
    with path.open("wb") as handle:
        handle.truncate(2**20 + 1)
    with pytest.raises(ImageError, match="larger than 1 MiB"):
        load_image(path)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_modes_without_a_fixed_range_are_refused(mode: str):
    with pytest.raises(ImageError, match=f"mode {mode}"):
        load_image(Image.new(mode, (2, 2)))


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ImageError, match="no pixels"):
        load_image(Image.new("RGB", (0, 3)))


SEEDS = [encoded(Image.fromarray(NOISE), kind) for kind in FORMATS] + [
    with_orientation(Image.fromarray(NOISE), 6, "JPEG"),
    encoded(Image.fromarray(NOISE).convert("P"), "PNG", transparency=3),
]


@settings(max_examples=250, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 3000),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_a_picture_or_an_image_error(data: bytes, changes, end: int):
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    with suppress(ImageError):  # any other exception fails the test
        assert load_image(bytes(damaged[: max(end, 1)])).mode == "RGB"


def test_many_threads_load_the_same_pixels():
    data = encoded(Image.fromarray(NOISE), "PNG")
    with ThreadPoolExecutor(8) as pool:
        for loaded in pool.map(load_image, [data] * 64):
            np.testing.assert_array_equal(pixels(loaded), NOISE)
