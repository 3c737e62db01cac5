from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from finegrain.data import lexicon
from finegrain.data.colors import NAMES, dominant_color
from finegrain.errors import DataError
from finegrain.methods import hard_negatives
from finegrain.synthetic import palette

CLOTH = {
    "black": (22, 22, 24),
    "gray": (128, 128, 130),
    "white": (240, 240, 238),
    "beige": (214, 190, 155),
    "brown": (105, 65, 35),
    "red": (200, 25, 35),
    "orange": (238, 125, 30),
    "yellow": (240, 215, 50),
    "green": (45, 140, 65),
    "blue": (40, 75, 170),
    "purple": (105, 50, 140),
    "pink": (235, 150, 175),
}
GROUNDS = {"white": (245, 245, 245), "wood": (150, 105, 65), "red": (170, 20, 30)}


def photo(cloth, ground, *, size=(150, 200)):
    """A shirt of one colour, with darker folds, in front of a background."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.rectangle((width * 0.2, height * 0.2, width * 0.8, height * 0.85), fill=cloth)
    fold = tuple(int(value * 0.85) for value in cloth)
    for x in (0.35, 0.65):
        draw.rectangle((width * x, height * 0.2, width * (x + 0.04), height * 0.85), fill=fold)
    return image


def test_every_colour_name_is_tested():
    assert tuple(CLOTH) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ground", GROUNDS)
def test_the_colour_is_that_of_the_cloth_and_not_of_the_background(name, ground):
    image = photo(CLOTH[name], GROUNDS[ground])
    assert dominant_color(image) == name
    assert dominant_color(np.asarray(image)) == name


@pytest.mark.parametrize("name", NAMES)
def test_a_uniform_picture_has_its_colour(name):
    assert dominant_color(np.full((3, 5, 3), CLOTH[name], np.uint8)) == name


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((28, 34, 72), "blue"),
        ((125, 150, 185), "blue"),
        ((95, 18, 32), "red"),
        ((90, 105, 60), "green"),
    ],
)
def test_shades_of_garments_have_names(rgb, name):
    assert dominant_color(photo(rgb, (225, 222, 218))) == name  # navy, denim, burgundy, olive


def test_a_small_print_does_not_change_the_colour():
    image = photo(CLOTH["white"], CLOTH["red"])
    ImageDraw.Draw(image).ellipse((60, 85, 90, 115), fill=CLOTH["green"])
    assert dominant_color(image) == "white"


def test_camera_noise_does_not_change_the_colour():
    clean = np.asarray(photo(CLOTH["blue"], GROUNDS["wood"])).astype(int)
    noise = np.random.default_rng(0).normal(0, 12, clean.shape)
    assert dominant_color(np.clip(clean + noise, 0, 255).astype(np.uint8)) == "blue"


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (4, 4)),
        Image.new("RGBA", (4, 4)),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_only_rgb_pictures_are_measured(picture):
    with pytest.raises(DataError, match=r"expected an RGB picture \[H, W, 3\]"):
        dominant_color(picture)


def test_colour_words_have_one_source():
    """Words for measured colours, exchanged words and paints come from the lexicon."""
    words = {word for family in lexicon.COLORS.values() for word in family}
    assert set(hard_negatives.WORDS) <= words
    assert set(palette.COLORS) <= words
    assert tuple(lexicon.COLORS) == NAMES
