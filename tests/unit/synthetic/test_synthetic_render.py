"""Pictures are reproducible, of any size, and have the named colours."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import DataError
from finegrain.synthetic import (
    CAMERAS,
    identities,
    render,
    render_with_regions,
    view_of,
)
from finegrain.synthetic.palette import COLORS

PEOPLE = identities(60)
PLAIN = replace(
    PEOPLE[0].person,
    upper="coat",
    upper_color="red",
    upper_pattern="plain",
    upper_second_color=None,
    upper_open=False,
    belt=False,
    bag=None,
    bag_color=None,
    umbrella_color=None,
    hat=None,
    hat_color=None,
    lower="trousers",
    lower_color="grey",
    lower_pattern="plain",
    lower_second_color=None,
    hem="long",
)
VIEW = replace(view_of(PEOPLE[0], 0), occluder=None, cut=0.0)


def _lab(rgb):
    pixel = np.asarray(rgb, np.float32).reshape(1, 1, 3) / 255.0
    return cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0]


def _nearest_color(rgb):
    return min(COLORS, key=lambda name: float(np.linalg.norm(_lab(COLORS[name]) - _lab(rgb))))


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_a_coat_has_its_named_color_in_every_camera(color, camera):
    for tone in (-1.0, 1.0):
        person = replace(PLAIN, upper_color=color, tone=tone)
        result = render_with_regions(person, replace(VIEW, camera=camera))
        median = np.median(result.image[result.mask("upper")], axis=0)
        assert _nearest_color(median) == color, (median, COLORS[color])


@pytest.mark.parametrize("slot", ["lower", "shoes", "umbrella", "hat", "bag"])
def test_other_things_have_their_named_color(slot):
    for color in ("red", "blue", "green", "yellow", "white", "black"):
        changes = {"umbrella_color": None, f"{slot}_color": color}
        if slot in ("hat", "bag"):
            changes[slot] = {"hat": "beanie", "bag": "backpack"}[slot]
        person = replace(PLAIN, shoes="boots", tone=0.0, **changes)
        result = render_with_regions(person, replace(VIEW, yaw=np.pi))
        median = np.median(result.image[result.mask(slot)], axis=0)
        assert _nearest_color(median) == color, (slot, median)


def test_the_same_arguments_give_the_same_bytes():
    for identity in PEOPLE[:10]:
        view = view_of(identity, 1)
        first = render(identity.person, view)
        assert first.dtype == np.uint8
        assert first.shape == (128, 64, 3)
        np.testing.assert_array_equal(first, render(identity.person, view))


def test_regions_do_not_change_the_picture():
    view = view_of(PEOPLE[3], 0)

    result = render_with_regions(PEOPLE[3].person, view)

    np.testing.assert_array_equal(result.image, render(PEOPLE[3].person, view))
    assert result.regions.shape == (128, 64)
    assert not result.mask("nothing of the kind").any()


@settings(max_examples=12, deadline=None)
@given(
    index=st.integers(0, len(PEOPLE) - 1),
    picture=st.integers(0, 9),
    height=st.integers(64, 260),
    ratio=st.floats(0.35, 0.8),
)
def test_any_size_is_drawn(index, picture, height, ratio):
    width = max(16, round(height * ratio))
    identity = PEOPLE[index]

    image = render(identity.person, view_of(identity, picture), size=(height, width))

    assert image.shape == (height, width, 3)
    assert image.std() > 5.0


@pytest.mark.parametrize("size", [(16, 64), (128, 8), (4096, 64)])
def test_too_small_sizes_are_refused(size):
    with pytest.raises(DataError, match="The usual size is"):
        render(PLAIN, VIEW, size=size)


def test_a_coat_is_longer_than_a_jacket_and_a_dress_needs_no_lower_garment():
    still = replace(VIEW, walking=False, yaw=0.0)

    def lowest(person):
        rows = np.flatnonzero(render_with_regions(person, still).mask("upper").any(axis=1))
        return int(rows.max())

    jacket = lowest(replace(PLAIN, upper="jacket"))
    assert lowest(PLAIN) > jacket + 15
    dress = replace(PLAIN, upper="dress", lower=None, lower_color=None, hem="knee", sleeves="short")
    assert lowest(dress) > jacket + 15
    assert not render_with_regions(dress, still).mask("lower").any()


def test_short_sleeves_and_short_hems_show_more_skin():
    still = replace(VIEW, walking=False, yaw=0.0)

    def skin(**changes):
        person = replace(PLAIN, upper="shirt", **changes)
        return int(render_with_regions(person, still).mask("skin").sum())

    assert skin(sleeves="short") > skin(sleeves="long") + 20
    assert skin(lower="shorts", hem="knee") > skin() + 50


def test_the_face_is_seen_from_the_front_only():
    front = render_with_regions(PLAIN, replace(VIEW, yaw=0.0)).mask("skin")[:40].sum()
    back = render_with_regions(PLAIN, replace(VIEW, yaw=np.pi)).mask("skin")[:40].sum()

    assert front > back + 15


def test_every_picture_shows_its_person():
    for identity in PEOPLE:
        for picture in range(2):
            result = render_with_regions(identity.person, view_of(identity, picture))
            share = (result.regions > 0).mean()
            assert 0.10 < share < 0.65
            assert result.mask("upper").sum() > 150
