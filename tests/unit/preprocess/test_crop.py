from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finegrain.errors import ImageError
from finegrain.preprocess import Crop, load_image

SIDES = st.integers(0, 99_999)
BOXES = st.tuples(SIDES, SIDES, st.integers(1, 99_999), st.integers(1, 99_999))
TIMES = st.integers(0, 9_999_999_999).map(lambda milliseconds: milliseconds / 1000)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES.filter(lambda name: name not in (".", "..")), BOXES | st.none(), TIMES)
def test_a_written_address_is_read_back(name: str, box, time: float):
    crop = Crop(f"/nowhere/{name}", box, time)
    assert Crop.of(crop.address) == Crop.of(Path(crop.address)) == crop
    if box is not None:
        picture = Crop(f"/nowhere/{name}", box)
        assert Crop.of(picture.address) == picture


@given(st.text("t=xywh&#.,0123456789-٣", max_size=30))
def test_an_address_that_is_read_and_written_is_equivalent(fragment: str):
    crop = Crop.of(f"/nowhere/film.mp4#{fragment}")
    if crop is not None:
        assert Crop.of(crop.address) == crop


@pytest.mark.parametrize(
    "address",
    [
        "photo.jpg",
        "photo.jpg#",
        "#t=1.000",
        "photo.jpg#t=",
        "photo.jpg#t=-1",
        "photo.jpg#t=1.0000",
        "photo.jpg#t=12345678",
        "photo.jpg#t=1&",
        "photo.jpg#&xywh=1,2,3,4",
        "photo.jpg#t=1xywh=1,2,3,4",
        "photo.jpg#xywh=1,2,3,4&t=1",
        "photo.jpg#xywh=1,2,0,4",
        "photo.jpg#xywh=1,2,3",
        "photo.jpg#xywh=-1,2,3,4",
        "photo.jpg#xywh=1,2,3,4\n",
        "photo.jpg#xywh=percent:1,2,3,4",
        "photo.jpg#t=٣",
        "photo\0.jpg#t=1/x",
    ],
)
def test_other_names_are_not_addresses(address: str):
    assert Crop.of(address) is None


def test_a_path_may_contain_the_separator_and_links_are_resolved(tmp_path: Path):
    (tmp_path / "a#b.mp4").touch()
    (tmp_path / "link.mp4").symlink_to("a#b.mp4")
    address = Crop(tmp_path / "link.mp4", time=1).address
    assert address == f"{os.path.realpath(tmp_path)}/a#b.mp4#t=1.000"
    crop = Crop.of(address)
    assert crop is not None
    assert Path(crop.path).name == "a#b.mp4"


@pytest.mark.parametrize(
    ("box", "time"),
    [
        ((0, 0, 0, 1), None),
        ((-1, 0, 1, 1), None),
        ((0, 0, 1, 100_000), None),
        ((0.5, 0, 1, 1), None),
        ((0, 0, 1), None),
        ((0, 0, 1, float("nan")), None),
        (("a", 0, 1, 1), None),
        (None, -0.1),
        (None, float("nan")),
        (None, 1e7),
        (None, None),
    ],
)
def test_invalid_boxes_and_times_are_refused(box, time):
    with pytest.raises(ImageError, match=r"film|time of a frame"):
        Crop("film.mp4", box, time)


def test_numpy_numbers_are_accepted():
    box = np.array([1, 2, 3, 4])
    assert Crop("a", tuple(box)).address.endswith("a#xywh=1,2,3,4")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_part_of_a_picture_opens_like_a_picture(photo: Path):
    part = load_image(Crop(photo, (5, 10, 20, 8)).address)
    assert np.array_equal(part, np.asarray(load_image(photo))[10:18, 5:25])
    edge = load_image(Path(Crop(photo, (30, 25, 20, 20)).address))
    assert edge.size == (10, 5)


def test_a_box_outside_is_refused(photo: Path):
    for box in ((40, 0, 5, 5), (0, 30, 5, 5)):
        with pytest.raises(ImageError, match="outside the picture of 40 x 30"):
            load_image(Crop(photo, box).address)


def test_a_file_of_the_same_name_has_priority(photo: Path, tmp_path: Path):
    name = Crop(photo, (0, 0, 2, 2)).address
    Image.new("RGB", (7, 7)).save(tmp_path / "other.png")
    (tmp_path / "other.png").rename(name)
    assert load_image(name).size == (7, 7)


def test_fragments_do_not_nest_and_need_an_existing_file(photo: Path, tmp_path: Path):
    inner = Crop(photo, (0, 0, 20, 20)).address
    with pytest.raises(ImageError, match="does not exist"):
        load_image(f"{inner}#xywh=0,0,5,5")
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "gone.png#xywh=0,0,5,5")
